"""Chromium without console errors and requests to other machines."""

import shutil
from urllib.parse import urlsplit

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_QUIET = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_LOCAL_SCHEMES = ("data", "blob", "about")
TIMEOUT_MS = 15_000


@pytest.fixture(scope="module")
def chromium():
    """The browser.

    Not for the session: while Playwright runs, this thread has a running event loop, and the SDK's
    `run_coroutine` in a later test of the same process would deadlock.
    """
    executable = next(filter(None, map(shutil.which, _NAMES)), None)
    if executable is None:
        pytest.skip("no Chromium: install Debian's package chromium")
    sync_api = pytest.importorskip("playwright.sync_api", reason="no Chromium driver: playwright")
    sync_api.expect.set_options(timeout=TIMEOUT_MS)  # a page polls its server
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=list(_QUIET))
        yield browser
        browser.close()


class Complaints:
    """Console errors, exceptions and foreign requests of pages."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self._expected: list[str] = []

    def expect(self, text: str) -> None:
        """Ignore complaints with this text."""
        self._expected.append(text)

    def unexpected(self) -> list[str]:
        """Return the complaints that were not expected."""
        return [each for each in self.found if not any(text in each for text in self._expected)]

    def watch(self, page) -> None:
        """Collect errors of a page and its requests to other machines."""
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.found.append(f"exception: {error}"))
        page.on("request", self._on_request)

    def _on_console(self, message) -> None:
        if message.type in ("error", "warning"):
            self.found.append(f"console {message.type}: {message.text}")

    def _on_request(self, request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in _LOCAL_SCHEMES and parts.hostname not in _LOOPBACK:
            self.found.append(f"request to {request.url}")


@pytest.fixture
def complaints():
    """Fail the test for unexpected complaints."""
    complaints = Complaints()
    yield complaints
    assert complaints.unexpected() == []


@pytest.fixture
def new_page(chromium, complaints):
    """Create watched pages; the options are those of a browser context."""
    contexts = []

    def make(**options):
        context = chromium.new_context(**{"viewport": {"width": 1280, "height": 860}, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(TIMEOUT_MS)
        complaints.watch(page)
        return page

    yield make
    for context in contexts:
        context.close()
