"""Dockerfiles: pinned versions, stages, users, and the files that a build needs."""

import json
import re
import subprocess
import sysconfig
from pathlib import Path

import pytest
import yaml

from supervisely_integration.gui.libraries import FETCHED, IMAGE_PAGE, WEB

from .dockerfiles import (
    DOCKER,
    ROOT,
    ancestry,
    apt_packages,
    copied_from_context,
    is_ignored,
    requirement_lines,
    stages,
)

MANIFESTS = [
    json.loads((ROOT / place / "config.json").read_text())
    for place in ("", "supervisely_integration/train", "supervisely_integration/serve")
]
IMAGE = MANIFESTS[0]["docker_image"]
ARGUMENTS, STAGES = stages(DOCKER / "Dockerfile")
FINAL = STAGES[-1]
DEPLOY_ARGUMENTS, DEPLOY_STAGES = stages(DOCKER / "Dockerfile.deploy")
PINS = dict(line.split("==") for line in requirement_lines(ROOT / "requirements.txt"))
COMPILERS = re.compile(r"gcc|g\+\+|clang|make|build-essential|-dev$|nvcc|devel|rust|cargo|golang")


def test_manifests_name_the_same_image():
    assert {manifest["docker_image"] for manifest in MANIFESTS} == {IMAGE}
    assert re.fullmatch(r"supervisely/rt-detrv2:\d+\.\d+\.\d+", IMAGE)


def test_base_image_matches_cuda_version_of_manifest():
    base = re.fullmatch(
        r"nvidia/cuda:(\d+\.\d+)\.\d+-cudnn-runtime-ubuntu24\.04@sha256:[0-9a-f]{64}",
        ARGUMENTS["BASE_IMAGE"],
    )
    assert base is not None
    assert base[1] == MANIFESTS[0]["cuda_version"]
    assert STAGES[0].base == "${BASE_IMAGE}"


def test_labels_match_sdk_and_image_version():
    sdk = PINS["supervisely[training,model-benchmark,versioning]"]
    text = (DOCKER / "Dockerfile").read_text()
    # The ecosystem's workflow looks for this line with grep.
    assert re.findall(r"^LABEL python_sdk_version=(.*)$", text, re.MULTILINE) == [sdk]
    labels = " ".join(FINAL.all("LABEL"))
    assert f'image.version="{IMAGE.split(":")[1]}"' in labels
    assert f'image.licenses="{MANIFESTS[0]["license"]["type"]}"' in labels
    assert re.search(r'image\.source="https://github\.com/[\w/-]+"', labels)


def test_final_stage_has_no_compiler_or_installer():
    layers = ancestry(STAGES, FINAL)
    assert [stage.name for stage in layers] == ["", "system"]
    installed = set().union(*map(apt_packages, layers))
    assert "python3" in installed
    fetches = [run for stage in layers for run in stage.all("RUN") if "apt-get install" in run]
    assert all("apt-get clean" in run and "/var/lib/apt/lists" in run for run in fetches)
    assert not [name for name in installed if COMPILERS.search(name)]
    assert not [name for stage in STAGES for name in apt_packages(stage) if COMPILERS.search(name)]
    packages = next(stage for stage in STAGES if stage.name == "packages")
    assert packages.all("RUN")[-1] == "pip uninstall --yes debugpy pip"


def test_packages_are_installed_from_lock_with_hashes():
    packages = next(stage for stage in STAGES if stage.name == "packages")
    installs = [command for command in packages.all("RUN") if "pip install" in command]
    assert "--require-hashes" in installs[0]
    assert installs[0].endswith("-r requirements.lock")
    assert "-r requirements-tensorrt.txt" in installs[1]
    assert 'if [ -n "$TENSORRT_INDEX" ]' in installs[1]
    assert len(installs) == 2


def test_no_dockerfile_frontend_is_downloaded():
    for name in ("Dockerfile", "Dockerfile.deploy"):
        assert not re.search(r"^#\s*syntax=", (DOCKER / name).read_text(), re.I | re.MULTILINE)


def test_user_is_numeric_and_health_check_calls_livez():
    (user,) = FINAL.all("USER")
    assert user.isdigit()
    assert int(user) > 0
    assert f"--uid {user} " in " ".join(FINAL.all("RUN"))
    (check,) = FINAL.all("HEALTHCHECK")
    assert f"'127.0.0.1', {MANIFESTS[0]['port']}" in check
    assert "'/livez'" in check
    assert FINAL.all("EXPOSE") == [str(MANIFESTS[0]["port"])]
    assert not DEPLOY_STAGES[-1].all("USER")  # inherited from the base image


def test_weights_are_in_cache_of_sdk_and_trainer():
    from rtdetrv2_pytorch.src.misc.weights import SUPERVISELY_CACHE

    home = re.search(r"HOME=(\S+)", " ".join(FINAL.all("ENV")))[1]
    place = str(SUPERVISELY_CACHE).replace("~", home)
    assert f"--from=weights {place} {place}" in FINAL.all("COPY")
    weights = next(stage for stage in STAGES if stage.name == "weights")
    assert f"HOME={home}" in weights.all("ENV")
    assert "WEIGHTS=all" in weights.all("ARG")


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name or "final")
def test_copied_files_exist_and_are_not_ignored(stage):
    for path in copied_from_context(stage):
        assert (ROOT / path).exists(), path
        assert not is_ignored(path), path


def test_build_context_contains_only_code():
    listed = subprocess.run(
        ("git", "ls-files"), cwd=ROOT, capture_output=True, text=True, check=True
    )
    files = listed.stdout.splitlines()
    code = [f for f in files if f.startswith(("rtdetrv2_pytorch/", "supervisely_integration/"))]
    assert [f for f in [*code, "config.json", "LICENSE"] if is_ignored(f)] == []
    others = [".git/HEAD", ".venv/bin/python", "app_data/x", "tests/tiny.py", "local.env"]
    others += ["docs/architecture.md", "output/best.pth", "rtdetrv2_pytorch/__pycache__/x.pyc"]
    assert [f for f in others if not is_ignored(f)] == []


def test_image_contains_page_libraries():
    page = next(stage for stage in STAGES if stage.name == "page")
    assert page.all("WORKDIR") == ["/page"]
    install, _, move = map(str.strip, page.all("RUN")[-1].split("&&"))
    assert install.startswith("npm ci ")
    declared = json.loads((WEB / "package.json").read_text())["dependencies"]
    assert move.split() == ["mv", *(f"node_modules/{name}" for name in declared), "used"]
    assert f"--from=page /page/used {IMAGE_PAGE}" in FINAL.all("COPY")
    needed = {"package.json", "package-lock.json", ".npmrc"}
    assert {ROOT / path for path in copied_from_context(page)} == {WEB / name for name in needed}
    assert is_ignored(f"{FETCHED.relative_to(ROOT)}/vue/dist/vue.min.js")


def test_deploy_image_adds_code_to_published_image():
    assert DEPLOY_ARGUMENTS == {"IMAGE": IMAGE}
    (final,) = DEPLOY_STAGES
    assert final.base == "${IMAGE}"
    assert final.all("COPY") == [". /app"]
    assert final.all("ENV")[0].split() == ["PYTHONPATH=/app", "UVICORN_HOST=0.0.0.0"]
    assert not apt_packages(final)


def test_compose_binds_images_to_loopback():
    file = yaml.safe_load((DOCKER / "compose.yml").read_text())
    services = file["services"]
    assert {name: service["image"] for name, service in services.items()} == {
        "train": IMAGE,
        "serve": IMAGE,
        "deploy": "rt-detrv2-deploy",
    }
    for service in services.values():
        assert service["ports"] == ["${BIND:-127.0.0.1}:8000:8000"]
        assert (DOCKER / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
        volumes = [volume.split(":")[0] for volume in service["volumes"]]
        assert set(volumes) - {".."} <= set(file["volumes"])
    assert services["train"]["command"] == ["train"]
    assert services["serve"]["command"] == ["serve"]


def test_development_container_builds_this_image():
    folder = ROOT / ".devcontainer"
    build = json.loads((folder / "devcontainer.json").read_text())["build"]
    assert (folder / build["dockerfile"]).resolve() == DOCKER / "Dockerfile"
    assert (folder / build["context"]).resolve() == ROOT
    assert build["args"].keys() <= {
        argument.split("=")[0] for stage in STAGES for argument in stage.all("ARG")
    }


def test_hadolint_reports_no_issues():
    command = [Path(sysconfig.get_path("scripts")) / "hadolint", "--no-color"]
    files = [DOCKER / "Dockerfile", DOCKER / "Dockerfile.deploy"]
    result = subprocess.run([*command, *files], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
