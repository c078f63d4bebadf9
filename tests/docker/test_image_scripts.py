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

import pytest
import torch

from .dockerfiles import DOCKER, ROOT

ENTRY = DOCKER / "entrypoint.sh"


def load(name):
    spec = importlib.util.spec_from_file_location(name, DOCKER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


bake_weights = load("bake_weights")
list_packages = load("list_packages")


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
    assert sorted(path.name for path in folder.iterdir()) == ["best.pth", "best.pth.url"]
    assert (folder / "best.pth").stat().st_mode & 0o777 == 0o644
    ((name, digest, address),) = list_packages.baked_weights(folder)
    assert (name, address) == ("best.pth", url)
    check = subprocess.run(("sha256sum", folder / "best.pth"), capture_output=True, text=True)
    assert digest == check.stdout.split()[0]


def test_npm_packages_are_listed_with_licenses(tmp_path):
    for folder, package in {
        "vue": {"name": "vue", "version": "2.7.16", "license": "MIT"},
        "element-ui": {"name": "element-ui", "version": "1.4.13"},
    }.items():
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "package.json").write_text(json.dumps(package))
    assert list_packages.page_packages(tmp_path) == [
        ("npm", "element-ui", "1.4.13", "not declared"),
        ("npm", "vue", "2.7.16", "MIT"),
    ]


def test_python_packages_are_listed_with_licenses():
    rows = {
        name: (kind, number, license_name)
        for kind, name, number, license_name in list_packages.python_packages()
    }
    assert rows["numpy"][:2] == ("python", version("numpy"))
    assert "BSD-3-Clause" in rows["numpy"][2]
    assert rows["supervisely"][2] == "see LICENSE"  # it declares none
    assert all(license_name for _, _, license_name in rows.values())


def test_system_licenses_come_from_copyright_files(tmp_path):
    file = tmp_path / "copyright"
    file.write_text("Files: *\nLicense: MIT\n\nFiles: a\nLicense: GPL-2+\n text\n\nLicense: MIT\n")
    assert list_packages.debian_license(file) == "MIT, GPL-2+"
    assert list_packages.debian_license(tmp_path / "none") == f"see {tmp_path / 'none'}"


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
