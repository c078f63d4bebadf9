"""Workflows: pinned actions, least permissions, no untrusted text in a shell, files that exist."""

import json
import re
from typing import Any

import pytest
import yaml

from .dockerfiles import ROOT

FOLDER = ROOT / ".github" / "workflows"
FILES = {path.name: yaml.safe_load(path.read_text()) for path in FOLDER.iterdir()}
JOBS = [
    pytest.param(job, id=f"{name}-{key}")
    for name, file in sorted(FILES.items())
    for key, job in file["jobs"].items()
]
MANIFEST = json.loads((ROOT / "config.json").read_text())
COMMIT = re.compile(r"[0-9a-f]{40}")
SCRIPTS = {"release.py", "release_models.py", "update_models.py"}


def triggers(file: dict[Any, Any]) -> Any:
    return file[True]  # YAML reads `on` as True


def steps(job: dict[str, Any]) -> list[dict[str, Any]]:
    return list(job.get("steps", ()))


def test_workflows_of_the_ecosystem_exist():
    assert FILES.keys() == {
        "build_image.yml",
        "check.yml",
        "dev_branch_build.yml",
        "publish.yml",
        "release.yml",
        "release_apps.yml",
        "release_branch.yml",
        "sync_models_manual.yml",
        "update_models_manual.yml",
    }


@pytest.mark.parametrize("name", sorted(FILES))
def test_workflows_may_only_read(name):
    assert FILES[name]["permissions"] == {"contents": "read"}
    assert not any("permissions" in job for job in FILES[name]["jobs"].values())


@pytest.mark.parametrize("job", JOBS)
def test_actions_and_other_repositories_are_pinned_by_commit(job):
    used = [job["uses"]] if "uses" in job else []
    used += [step["uses"] for step in steps(job) if "uses" in step]
    for use in used:
        place, _, commit = use.partition("@")
        if place.startswith("./"):
            assert (ROOT / place).is_file()
        else:
            assert COMMIT.fullmatch(commit), use
    for step in steps(job):
        given = step.get("with", {})
        if "repository" in given:
            assert COMMIT.fullmatch(given["ref"])
        if step.get("uses", "").startswith("actions/checkout@"):
            assert given["persist-credentials"] is False


@pytest.mark.parametrize("job", JOBS)
def test_shells_get_texts_only_in_variables(job):
    assert [step["run"] for step in steps(job) if "${{" in step.get("run", "")] == []


@pytest.mark.parametrize("job", JOBS)
def test_production_token_only_goes_to_pinned_scripts(job):
    if "SUPERVISELY_PROD_API_TOKEN" in json.dumps(job.get("secrets", {})):
        assert job["uses"] == "./.github/workflows/release_apps.yml"
    for step in steps(job):
        if "secrets." in json.dumps(step):
            assert step["run"].removeprefix("python workflow/") in SCRIPTS
            assert "secrets." not in step["run"]


@pytest.mark.parametrize("name", ["build_image.yml", "dev_branch_build.yml"])
def test_tag_is_checked_before_the_image_is_built(name):
    # The ecosystem's workflow writes the tag into shell commands.
    jobs = FILES[name]["jobs"]
    check = jobs["tag"]["steps"][-1]
    assert check["run"] == (
        'test "$(jq -r .docker_image config.json)" = "supervisely/rt-detrv2:$TAG"'
    )
    assert check["env"] == {"TAG": "${{ inputs.tag_version }}"}
    assert jobs["image"]["needs"] == "tag"
    given = jobs["image"]["with"]
    assert (ROOT / given["dockerfile_path"]).is_file()
    assert MANIFEST["docker_image"].startswith(f"supervisely/{given['image_name']}:")


def test_check_workflow_runs_make_on_both_python_versions():
    (job,) = FILES["check.yml"]["jobs"].values()
    assert job["strategy"]["matrix"]["python"] == ["3.11", "3.12"]
    assert job["steps"][-1] == {"run": "make check test"}


def test_scripts_of_the_ecosystem_use_pinned_packages_and_existing_files():
    for name in ("release_apps.yml", "sync_models_manual.yml", "update_models_manual.yml"):
        ((_, job),) = FILES[name]["jobs"].items()
        install = next(s["run"] for s in job["steps"] if s.get("run", "").startswith("pip"))
        lines = (ROOT / install.split()[-1]).read_text().splitlines()
        assert all(re.fullmatch(r"\w+==[\d.]+|#.*", line) for line in lines)
        given = job["steps"][-1]["env"]
        for app in given.get("SUBAPP_PATHS", "").split(", "):
            assert not app or (ROOT / app / "config.json").is_file()
        if "MODELS_PATH" in given:
            assert (ROOT / given["MODELS_PATH"]).is_file()
            assert f"framework:{given['FRAMEWORK']}" in MANIFEST["categories"]


def test_release_includes_both_apps():
    (job,) = FILES["release_apps.yml"]["jobs"].values()
    paths = job["steps"][-1]["env"]["SUBAPP_PATHS"]
    assert paths == "supervisely_integration/train, supervisely_integration/serve"
    declared = triggers(FILES["release_apps.yml"])["workflow_call"]
    calls = {
        name: job
        for name, file in FILES.items()
        for job in file["jobs"].values()
        if job.get("uses") == "./.github/workflows/release_apps.yml"
    }
    types = {name: job["with"]["type"] for name, job in calls.items()}
    assert types == {
        "release.yml": "release",
        "release_branch.yml": "release-branch",
        "dev_branch_build.yml": "release-branch",
        "publish.yml": "publish",
    }
    for job in calls.values():
        assert job["with"].keys() == declared["inputs"].keys()
        assert job["secrets"].keys() == declared["secrets"].keys()


def test_pre_releases_and_bot_branches_are_excluded():
    assert FILES["release.yml"]["jobs"]["release"]["if"] == (
        "${{ !github.event.release.prerelease }}"
    )
    on = triggers(FILES["release_branch.yml"])
    assert on["push"]["branches-ignore"] == ["main", "master", "sly-version-update-v-*"]
