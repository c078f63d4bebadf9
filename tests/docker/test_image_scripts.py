"""Scripts of the image: entry point, included weights, package lists."""

import http.server
import importlib.util
import json
import os
import shutil
import subprocess
import tempfile
import threading
from functools import partial
from importlib.metadata import version
from pathlib import Path
from urllib.parse import quote

import pytest
import torch
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from .dockerfiles import DOCKER, ROOT

ENTRY = DOCKER / "entrypoint.sh"


def load(name):
    spec = importlib.util.spec_from_file_location(name, DOCKER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


bake_weights = load("bake_weights")
bill_of_materials = load("bill_of_materials")


@pytest.fixture
def app_folder():
    """A folder that all users can enter, with an app that prints its command."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    for app in ("train", "serve"):
        place = folder / "supervisely_integration" / app
        place.mkdir(parents=True)
        command = f"printf %s|%s|%s\\n {app} a"
        manifest = {"name": f"The {app} app", "entrypoint": command}
        (place / "config.json").write_text(json.dumps(manifest))
    (folder / "data").mkdir()
    yield folder
    shutil.rmtree(folder)


def run(folder, *words, env=None, **more):
    variables = {"PATH": os.environ["PATH"], "SLY_APP_DATA_DIR": str(folder / "data")}
    return subprocess.run(
        ("sh", ENTRY, *words),
        cwd=folder,
        env={**variables, **(env or {})},
        capture_output=True,
        text=True,
        check=False,
        **more,
    )


@pytest.mark.parametrize("app", ["train", "serve"])
def test_app_runs_entrypoint_of_manifest(app_folder, app):
    result = run(app_folder, app)
    assert (result.stdout, result.returncode) == (f"{app}|a|\n", 0)


def test_other_commands_run_unchanged(app_folder):
    result = run(app_folder, "printf", "%s,", "a b", "c")
    assert result.stdout == "a b,c,"


def test_defaults_of_app_name_and_data_directory(
    app_folder,
):
    manifest = app_folder / "supervisely_integration" / "train" / "config.json"
    manifest.write_text(json.dumps({"name": "an app", "entrypoint": "env"}))
    free = run(app_folder, "train", env={"SLY_APP_DATA_DIR": ""}).stdout.splitlines()
    task = run(app_folder, "train", env={"SLY_APP_DATA_DIR": "", "TASK_ID": "7"}).stdout
    assert "SLY_APP_DATA_DIR=/sly-app-data" in free
    assert "SLY_APP_DATA_DIR=/sly-app-data" not in task.splitlines()
    assert "APP_NAME=an app" in free
    named = run(app_folder, "train", env={"APP_NAME": "of the platform"}).stdout.splitlines()
    assert "APP_NAME=of the platform" in named


def test_missing_code_is_reported_with_remedy(tmp_path):
    result = run(tmp_path, "train")
    assert result.returncode == 2
    assert f"no code in {tmp_path}: mount a clone" in result.stderr
    assert "Dockerfile.deploy" in result.stderr


def test_unwritable_data_directory_is_reported(app_folder):
    (app_folder / "data").chmod(0o555)
    other = 65534 if os.geteuid() == 0 else None  # root may write everywhere
    result = run(app_folder, "train", user=other, group=other)
    assert result.returncode == 2
    assert f"may not write to {app_folder / 'data'}: start with --user 0" in result.stderr


def test_model_names_resolve_to_urls():
    table = json.loads(bake_weights.MODELS.read_text())
    urls = [row["meta"]["model_files"].get("checkpoint") for row in table]
    assert bake_weights.addresses("all") == [url for url in urls if url]
    assert bake_weights.addresses("RT-DETRv2-M*, RT-DETRv2-S") == [urls[1], urls[0]]
    assert bake_weights.addresses("") == []


def test_unknown_model_is_rejected_with_list():
    with pytest.raises(SystemExit, match=r"no weights of RT-DETRv2-Q; there are: RT-DETRv2-S, "):
        bake_weights.addresses("RT-DETRv2-S,RT-DETRv2-Q")


def test_downloaded_weights_are_readable_and_listed(tmp_path, monkeypatch):
    source = tmp_path / "source"
    source.mkdir()
    torch.save({"model": {"w": torch.ones(2)}}, source / "best.pth")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=source)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/best.pth"
    try:
        bake_weights.bake([url])
    finally:
        server.shutdown()
    folder = tmp_path / "home" / ".cache" / "supervisely" / "checkpoints"
    names = ["best.pth", "best.pth.sha256", "best.pth.url"]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert (folder / "best.pth").stat().st_mode & 0o777 == 0o644
    (found,) = bill_of_materials.weights(folder)
    assert (found["name"], found["externalReferences"][0]["url"]) == ("best.pth", url)
    check = subprocess.run(("sha256sum", folder / "best.pth"), capture_output=True, text=True)
    digest = check.stdout.split()[0]
    assert found["hashes"] == [{"alg": "SHA-256", "content": digest}]
    assert (folder / "best.pth.sha256").read_text() == f"{digest}  best.pth\n"


def license_of(component):
    (entry,) = component["licenses"]
    return entry["license"]["name"]


def test_npm_packages_are_listed_with_licenses(tmp_path):
    for folder, package in {
        "vue": {"name": "vue", "version": "2.7.16", "license": "MIT"},
        "element-ui": {"name": "element-ui", "version": "1.4.13"},
    }.items():
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "package.json").write_text(json.dumps(package))
    found = bill_of_materials.page_packages(tmp_path)
    assert [(package["purl"], license_of(package)) for package in found] == [
        ("pkg:npm/element-ui@1.4.13", "not declared"),
        ("pkg:npm/vue@2.7.16", "MIT"),
    ]


def test_python_packages_are_listed_with_licenses():
    found = {package["name"]: package for package in bill_of_materials.python_packages()}
    assert found["numpy"]["purl"] == f"pkg:pypi/numpy@{version('numpy')}"
    assert "BSD-3-Clause" in license_of(found["numpy"])
    assert license_of(found["supervisely"]) == "see LICENSE"  # it declares none
    assert "pillow" in found
    assert all(map(license_of, found.values()))


def test_system_packages_are_listed_with_distribution(tmp_path):
    release = tmp_path / "os-release"
    release.write_text('ID=ubuntu\nVERSION_ID="24.04"\n')
    found = {package["name"]: package for package in bill_of_materials.system_packages(release)}
    query = ("dpkg-query", "--show", "--showformat", "${Version}", "libstdc++6")
    number = subprocess.run(query, capture_output=True, text=True, check=True).stdout
    assert found["libstdc++6"]["version"] == number
    assert found["libstdc++6"]["purl"] == (
        f"pkg:deb/ubuntu/libstdc%2B%2B6@{quote(number)}?distro=ubuntu-24.04"
    )


def test_bill_of_materials_is_valid_cyclonedx(tmp_path):
    torch.save({"model": {"w": torch.ones(2)}}, tmp_path / "best.pth")
    (tmp_path / "best.pth.url").write_text("https://weights.example/best.pth")
    components = bill_of_materials.python_packages() + bill_of_materials.weights(tmp_path)
    text = json.dumps(bill_of_materials.document(components))
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    broken = text.replace('"name": "numpy", ', "")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(broken) is not None


def test_system_licenses_come_from_copyright_files(tmp_path):
    file = tmp_path / "copyright"
    file.write_text("Files: *\nLicense: MIT\n\nFiles: a\nLicense: GPL-2+\n text\n\nLicense: MIT\n")
    assert bill_of_materials.debian_license(file) == "MIT, GPL-2+"
    assert bill_of_materials.debian_license(tmp_path / "none") == f"see {tmp_path / 'none'}"


def publish(tmp_path, *, changes="", published=1):
    calls = tmp_path / "calls"
    for name, script in {
        "git": f'case $1 in status) printf "%s" "{changes}";; rev-parse) echo abc;; esac',
        "docker": f'echo "$*" >> {calls}; if [ "$1" = manifest ]; then exit {published}; fi',
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    result = subprocess.run(
        (DOCKER / "publish.sh", "--build-arg", "WEIGHTS="),
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    return result, calls.read_text().splitlines() if calls.exists() else []


def test_publish_builds_and_pushes_image_of_manifest(tmp_path):
    image = json.loads((ROOT / "config.json").read_text())["docker_image"]
    result, calls = publish(tmp_path)
    assert result.returncode == 0, result.stderr
    assert calls[1:] == [
        "build --label org.opencontainers.image.revision=abc "
        f"-f docker/Dockerfile -t {image} --build-arg WEIGHTS= .",
        f"push {image}",
    ]


def test_publish_rejects_uncommitted_changes(tmp_path):
    result, calls = publish(tmp_path, changes=" M README.md")
    assert (result.returncode, calls) == (1, [])
    assert "uncommitted changes" in result.stderr


def test_publish_does_not_replace_published_image(tmp_path):
    result, calls = publish(tmp_path, published=0)
    assert result.returncode == 1
    assert len(calls) == 1
    assert "already published" in result.stderr
