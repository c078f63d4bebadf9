import pytest

from supervisely_integration.access.hosts import is_local
from supervisely_integration.gui.choice import is_reachable, needs_own_page


@pytest.mark.parametrize(
    "address",
    ["http://127.0.0.1:8080", "127.0.0.2", "http://localhost/", "http://[::1]:80", "a.localhost"],
)
def test_local_addresses(address):
    assert is_local(address)


@pytest.mark.parametrize(
    "address", ["https://app.supervisely.com", "http://10.0.0.1", "localhost.evil.com", ""]
)
def test_other_addresses(address):
    assert not is_local(address)


def test_only_existing_files_are_reachable(web, tmp_path):
    (tmp_path / "bundle.js").touch()
    assert is_reachable(f"{web}/bundle.js")
    assert not is_reachable(f"{web}/other.js")
    assert not is_reachable("http://127.0.0.1:9/bundle.js")
    assert not is_reachable("http://no-such-host.invalid/bundle.js")


def test_platform_keeps_its_page_while_its_scripts_are_reachable(web, tmp_path):
    (tmp_path / "bundle.js").touch()
    platform = "https://app.supervisely.com"
    assert not needs_own_page(platform, f"{web}/bundle.js")
    assert needs_own_page(platform, f"{web}/other.js")
    assert needs_own_page("http://localhost:8080", f"{web}/bundle.js")
