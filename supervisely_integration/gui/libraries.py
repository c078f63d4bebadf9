"""The libraries of the page: npm packages that are fetched once (`make page`), never committed."""

from pathlib import Path

WEB = Path(__file__).with_name("web")
PACKAGES = WEB / "node_modules"

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


def missing_libraries() -> list[str]:
    """Files that the page needs and that are not there."""
    return [name for name in (*SCRIPTS, *STYLES) if not (PACKAGES / name).is_file()]
