import json
import re

from supervisely_integration.gui import libraries
from supervisely_integration.paths import ROOT


def test_lock_file_pins_versions_and_names_no_registry():
    package = json.loads((libraries.WEB / "package.json").read_text())
    lock = (libraries.WEB / "package-lock.json").read_text()
    locked = json.loads(lock)["packages"]
    assert "://" not in re.sub(r'"(url|funding)": "[^"]*"', "", lock)
    for name, version in package["dependencies"].items():
        assert locked[f"node_modules/{name}"]["version"] == version
    assert all("integrity" in entry for name, entry in locked.items() if name)


def test_every_library_file_is_of_a_declared_package():
    declared = json.loads((libraries.WEB / "package.json").read_text())["dependencies"]
    files = (*libraries.SCRIPTS, *libraries.STYLES, *libraries.API_SCRIPTS, *libraries.API_STYLES)
    used = {name.split("/")[0] for name in files}
    assert used == set(declared)


def test_node_modules_are_not_committed():
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert f"/{libraries.FETCHED.relative_to(ROOT)}" in ignored


def test_missing_files_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(libraries, "PACKAGES", tmp_path)
    file = tmp_path / libraries.SCRIPTS[0]
    file.parent.mkdir(parents=True)
    file.touch()
    assert libraries.missing_libraries() == [*libraries.SCRIPTS[1:], *libraries.STYLES]
