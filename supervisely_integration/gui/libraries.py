"""JavaScript libraries of the page: npm packages that `make page` installs."""

from collections.abc import Sequence
from pathlib import Path

WEB = Path(__file__).with_name("web")
FETCHED = WEB / "node_modules"
IMAGE_PAGE = Path("/usr/share/rtdetrv2/page")  # installed by docker/Dockerfile
# The platform mounts the code, without node_modules, into the image.
PACKAGES = IMAGE_PAGE if IMAGE_PAGE.is_dir() and not FETCHED.is_dir() else FETCHED

SCRIPTS = (
    "vue/dist/vue.min.js",
    "element-ui/lib/index.js",
    "element-ui/lib/umd/locale/en.js",
    "fast-json-patch/dist/fast-json-patch.min.js",
)
STYLES = (
    "element-ui/lib/theme-default/index.css",
    "material-design-iconic-font/dist/css/material-design-iconic-font.min.css",
)
# Of the page that documents the API of the serving app.
API_SCRIPTS = ("swagger-ui-dist/swagger-ui-bundle.js",)
API_STYLES = ("swagger-ui-dist/swagger-ui.css",)


def missing_libraries(names: Sequence[str] = (*SCRIPTS, *STYLES)) -> list[str]:
    """Return the library files that are not installed; default: those of the app's page."""
    return [name for name in names if not (PACKAGES / name).is_file()]
