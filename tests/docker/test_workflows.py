"""The workflows call the ecosystem's with files and names that exist."""

import json

import pytest
import yaml

from .dockerfiles import ROOT

FOLDER = ROOT / ".github" / "workflows"
FILES = {path.name: yaml.safe_load(path.read_text()) for path in FOLDER.iterdir()}
CALLS = [
    pytest.param(job, id=f"{name}-{key}")
    for name, file in sorted(FILES.items())
    for key, job in file["jobs"].items()
    if "uses" in job
]
MANIFEST = json.loads((ROOT / "config.json").read_text())


def test_workflows_match_ecosystem():
    assert FILES.keys() == {
        "build_image.yml",
        "check.yml",
        "dev_branch_build.yml",
        "publish.yml",
        "release.yml",
        "release_branch.yml",
        "sync_models_manual.yml",
        "update_models_manual.yml",
    }


def test_check_workflow_runs_make_on_both_python_versions():
    (job,) = FILES["check.yml"]["jobs"].values()
    assert job["strategy"]["matrix"]["python"] == ["3.11", "3.12"]
    assert job["steps"][-1] == {"run": "make check test"}


@pytest.mark.parametrize("job", CALLS)
def test_called_workflows_and_files_exist(job):
    prefix = "supervisely-ecosystem/workflows/.github/workflows/"
    assert job["uses"].removeprefix(prefix) in {
        "build_image.yml@master",
        "common.yml@master",
        "sync_models_common.yml@master",
        "update_models_common.yml@master",
    }
    given = job["with"]
    for app in given.get("SUBAPP_PATHS", "").split(", "):
        assert not app or (ROOT / app / "config.json").is_file()
    if "MODELS_PATH" in given:
        assert (ROOT / given["MODELS_PATH"]).is_file()
        assert f"framework:{given['FRAMEWORK']}" in MANIFEST["categories"]
    if "dockerfile_path" in given:
        assert (ROOT / given["dockerfile_path"]).is_file()
        assert MANIFEST["docker_image"].startswith(f"supervisely/{given['image_name']}:")


def test_release_includes_both_apps():
    for name in ("release.yml", "release_branch.yml", "publish.yml", "dev_branch_build.yml"):
        job = FILES[name]["jobs"].get("release") or FILES[name]["jobs"]["publish"]
        paths = job["with"]["SUBAPP_PATHS"]
        assert paths == "supervisely_integration/train, supervisely_integration/serve"


def test_pre_releases_and_bot_branches_are_excluded():
    assert FILES["release.yml"]["jobs"]["release"]["if"] == (
        "${{ !github.event.release.prerelease }}"
    )
    on = FILES["release_branch.yml"][True]  # YAML reads `on` as True
    assert on["push"]["branches-ignore"] == ["main", "master", "sly-version-update-v-*"]
