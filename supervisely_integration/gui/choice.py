"""Choose the page of an app: the platform's, whose scripts come from a CDN, or the app's own."""

import requests
from supervisely.app.fastapi.templating import js_bundle_version

from ..access.hosts import is_local

SCRIPTS = (
    "https://cdn-public-cloudstore.supervisely.com/sly-app-bundle/"
    f"{js_bundle_version}/sly-app-widgets-{js_bundle_version}.bundle.js"
)
_TIMEOUT_S = 3.0


def is_reachable(address: str) -> bool:
    """Return whether this machine can download a file; assumed to hold for the browser, too."""
    try:
        return requests.head(address, timeout=_TIMEOUT_S, allow_redirects=True).ok
    except requests.RequestException:
        return False


def needs_own_page(server_address: str, scripts: str = SCRIPTS) -> bool:
    """Return whether the platform's page is missing, or would stay blank without its scripts.

    Args:
        server_address: of the instance or platform that the app works for.
        scripts: address of the scripts of the platform's page.
    """
    return is_local(server_address) or not is_reachable(scripts)
