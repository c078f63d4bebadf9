"""Files that the ecosystem, the SDK and the editor read."""

import ast
import importlib.util
import json
import re
import shlex

import pytest
import yaml

from supervisely_integration import paths

MANIFEST = json.loads(paths.TRAIN_MANIFEST.read_text(encoding="utf-8"))
OPTIONS = yaml.safe_load(paths.TRAIN_OPTIONS.read_text(encoding="utf-8"))
SERVE_MANIFEST = json.loads(paths.SERVE_MANIFEST.read_text(encoding="utf-8"))
SERVE_OPTIONS = yaml.safe_load(paths.SERVE_OPTIONS.read_text(encoding="utf-8"))
LAUNCH = json.loads((paths.ROOT / ".vscode" / "launch.json").read_text(encoding="utf-8"))


def test_every_path_exists():
    chosen = {name: value for name, value in vars(paths).items() if name.isupper()}
    assert len(chosen) >= 9
    assert [name for name, path in chosen.items() if not path.exists()] == []


@pytest.mark.parametrize(
    "module", ["project_splits", "experiment", "hyperparameters", "progress_bars", "run_config"]
)
def test_modules_import_without_the_sdk(module):
    """The import takes seconds, so it must be inside a function."""
    source = (paths.TRAIN / f"{module}.py").read_text(encoding="utf-8")
    at_top = [n for n in ast.parse(source).body if isinstance(n, ast.Import | ast.ImportFrom)]
    names = [a.name for n in at_top if isinstance(n, ast.Import) for a in n.names]
    names += [n.module or "" for n in at_top if isinstance(n, ast.ImportFrom)]
    assert not [name for name in names if name.split(".")[0] == "supervisely"]


# config.json


def test_both_manifests_are_identical():
    assert paths.ROOT_MANIFEST.read_text() == paths.TRAIN_MANIFEST.read_text()


def test_manifest_starts_the_training_app():
    words = shlex.split(MANIFEST["entrypoint"])
    assert words[:4] == ["python3", "-m", "uvicorn", "main:train.app"]
    options = dict(zip(words[4::2], words[5::2], strict=True))
    assert options["--port"] == str(MANIFEST["port"]) == "8000"
    assert options["--ws"] == "websockets"
    assert paths.ROOT / options["--app-dir"] == paths.TRAIN


def test_manifest_has_categories_and_menu():
    assert MANIFEST["type"] == "app"
    assert MANIFEST["version"] == "2.0.0"
    assert "framework:RT-DETRv2" in MANIFEST["categories"]
    assert {"train", "images", "object detection", "neural network"} <= set(MANIFEST["categories"])
    assert MANIFEST["framework"]["name"] == "RT-DETRv2"
    assert MANIFEST["task_location"] == "workspace_tasks"
    assert MANIFEST["context_menu"]["target"] == ["images_project"]
    assert MANIFEST["context_menu"]["context_root"] == "Neural Networks"
    assert MANIFEST["community_agent"] is False
    assert MANIFEST["license"] == {"type": "Apache-2.0"}


def test_versions_are_pinned():
    assert re.fullmatch(r"[\w./-]+:\d+\.\d+\.\d+", MANIFEST["docker_image"])
    assert re.fullmatch(r"\d+\.\d+\.\d+", MANIFEST["instance_version"])


def test_files_of_the_manifest_exist():
    for path in MANIFEST["files"].values():
        assert (paths.ROOT / path).is_file()


def test_manifest_lists_the_exports_of_the_app():
    offered = {
        "ONNX": OPTIONS["export_onnx_supported"],
        "TensorRT": OPTIONS["export_tensorrt_supported"],
    }
    assert MANIFEST["framework"]["export"] == [name for name, is_on in offered.items() if is_on]


def test_serving_manifest_starts_the_serving_app():
    words = shlex.split(SERVE_MANIFEST["entrypoint"])
    assert words[:4] == ["python3", "-m", "uvicorn", "main:model.app"]
    assert paths.ROOT / words[words.index("--app-dir") + 1] == paths.SERVE
    launch = next(c for c in LAUNCH["configurations"] if c["name"] == "Uvicorn Serve")
    assert [launch["module"], *launch["args"]] == [
        "127.0.0.1" if word == "0.0.0.0" else word for word in words[2:]
    ]


def test_serving_manifest_has_categories_and_tags():
    assert SERVE_MANIFEST["session_tags"] == ["deployed_nn"]
    assert SERVE_MANIFEST["task_location"] == "application_sessions"
    assert {"serve", "images", "videos", "framework:RT-DETRv2"} <= set(SERVE_MANIFEST["categories"])
    assert "train" not in SERVE_MANIFEST["categories"]
    for key in ("version", "docker_image", "cuda_version", "instance_version", "license"):
        assert SERVE_MANIFEST[key] == MANIFEST[key]
    for path in SERVE_MANIFEST["files"].values():
        assert (paths.ROOT / path).is_file()


def test_serving_page_offers_every_runtime():
    from supervisely_integration.sdk.deployment import RUNTIMES

    assert SERVE_OPTIONS["supported_runtimes"] == list(RUNTIMES)
    assert SERVE_OPTIONS["external_model_options"]["classes"] is True


# app_options.yaml


def test_every_split_method_is_offered():
    from supervisely.app.widgets import SplitMethod

    methods = OPTIONS["train_val_splits_selector"]["methods"]
    assert SplitMethod.parse_list(methods) == list(SplitMethod.ALL)
    assert methods == list(SplitMethod.ALL)  # by their current names


def test_default_model_is_in_the_table():
    names = [row["Model"] for row in json.loads(paths.MODELS.read_text(encoding="utf-8"))]
    assert OPTIONS["model_selector"]["default_model"] in names


def test_unusable_options_are_off():
    assert "train_logger" not in OPTIONS
    assert OPTIONS["train_val_splits_selector"]["enabled"] is True
    demo = OPTIONS.get("demo")
    assert demo is None or (paths.ROOT / demo["path"]).is_dir()


def test_options_of_the_page():
    assert OPTIONS["show_logs_in_gui"] is True
    assert OPTIONS["device_selector"] is True  # required by the SDK for a choice of devices
    assert OPTIONS["multi_gpu"] is True
    assert OPTIONS["auto_convert_classes"] is True
    assert OPTIONS["collapsable"] is False
    assert OPTIONS["model_selector"]["show_custom"] is True
    assert OPTIONS["original_repository"]["url"].startswith("https://")


# The editor


def test_the_editors_settings_are_json():
    settings = json.loads((paths.ROOT / ".vscode" / "settings.json").read_text(encoding="utf-8"))
    assert settings["[python]"]["editor.formatOnSave"] is True


@pytest.mark.parametrize("launch", LAUNCH["configurations"], ids=lambda c: c["name"])
def test_a_launch_configuration_can_be_started(launch):
    assert launch["type"] == "debugpy"
    assert importlib.util.find_spec(launch["module"]) is not None
    assert launch["cwd"] == launch["env"]["PYTHONPATH"] == "${workspaceFolder}"
    if "envFile" in launch:
        assert (paths.ROOT / launch["envFile"].removeprefix("${workspaceFolder}/")).is_file()


def test_launch_configurations_are_complete():
    names = [c["name"] for c in LAUNCH["configurations"]]
    assert names[0] == "Uvicorn Train"
    assert {"Uvicorn Serve", "Local Deploy", "Command-line training", "Tests"} <= set(names)


def test_launch_configuration_binds_to_loopback():
    launch = LAUNCH["configurations"][0]
    words = shlex.split(MANIFEST["entrypoint"])
    assert [launch["module"], *launch["args"]] == [
        "127.0.0.1" if word == "0.0.0.0" else word for word in words[2:]
    ]
    assert launch["env"]["LOG_LEVEL"] == "DEBUG"
    assert launch["env"]["DEBUG_APP_DIR"] == "app_data"
    ignored = (paths.ROOT / ".gitignore").read_text().splitlines()
    assert "/app_data/" in ignored


def test_launch_configuration_uses_valid_options():
    from rtdetrv2.commands.train import main

    launch = next(c for c in LAUNCH["configurations"] if c["name"] == "Command-line training")
    main.make_context("train", launch["args"])


@pytest.mark.parametrize("app", ["train", "serve"])
def test_launch_configuration_uses_the_name_of_the_manifest(app):
    launch = next(c for c in LAUNCH["configurations"] if c["name"] == f"Uvicorn {app.title()}")
    manifest = json.loads((paths.PACKAGE / app / "config.json").read_text(encoding="utf-8"))
    assert launch["env"]["APP_NAME"] == manifest["name"]


def test_local_env_contains_no_secret():
    lines = (paths.ROOT / "local.env").read_text(encoding="utf-8").splitlines()
    chosen = dict(x.split("=", 1) for x in lines if x and not x.startswith("#"))
    assert set(chosen) == {"TEAM_ID", "WORKSPACE_ID", "PROJECT_ID"}
    commented = [line for line in lines if "API_TOKEN=" in line]
    assert commented == ["# API_TOKEN=<token>"]
