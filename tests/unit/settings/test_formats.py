"""Formats of settings: the app's, and those of the SDK's TrainApi."""

import pytest

from rtdetrv2_pytorch.src.misc.errors import ConfigError
from supervisely_integration.settings.formats import app_settings

APP = {"model": {"source": "Pretrained models", "model_name": "RT-DETRv2-M"}, "classes": ["cat"]}


def test_settings_of_the_app():
    assert app_settings(APP, "f.json") == (APP, None)
    saved = {**APP, "input": {"project_id": 5}}
    assert app_settings(saved, "f.json") == (saved, 5)


def test_parameters_that_the_sdk_starts_the_app_with():
    from supervisely.api.nn.train_api import Model, RandomSplit, TrainApi

    model = Model(None, "Pretrained models", framework="RT-DETRv2", model_name="RT-DETRv2-M")
    values = {
        "classes": ["cat"],
        "train_val_split": RandomSplit(90),
        "hyperparameters": "epoches: 3",
        "experiment_name": "x",
        "enable_speedtest": True,
        "export_onnx": True,
    }
    others = {
        "convert_class_shapes": True,
        "enable_benchmark": False,
        "cache_project": True,
        "export_tensorrt": False,
        "autostart": True,
    }
    parameters = TrainApi(None)._get_app_state(project_id=4, model=model, **values, **others)
    settings, project = app_settings(parameters, "f.json")
    assert (settings, project) == (parameters["state"]["guiState"], 4)
    # The arguments of TrainApi.run give the same settings.
    arguments = {**values, **others, "train_val_split": RandomSplit(90).app_state()}
    arguments |= {"project_id": 4, "model": "RT-DETRv2/RT-DETRv2-M", "agent_id": 3}
    assert app_settings(arguments, "f.json") == (settings, 4)


def test_checkpoint_of_an_experiment():
    path = "/experiments/1_site/7_RT-DETRv2/checkpoints/best.pth"
    settings, _ = app_settings({"model": path}, "f.json")
    expected = {"source": "Custom models", "task_id": 7, "checkpoint": "best.pth"}
    assert settings["model"] == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"state": {"trainTaskId": 7, "slyProjectId": 1}}, r"task 7; use the app_state\.json"),
        ({"state": {"slyProjectId": "x", "guiState": APP}}, "project = 'x': give the ID"),
        ({"guiState": "text"}, "guiState = 'text': not an object"),
        ({"model": "a/b", "clases": []}, "unknown argument 'clases'.*did you mean 'classes'"),
        ({"epoches": 3}, "f.json: no settings of a training.*model = None"),
    ],
)
def test_unknown_formats_are_explained(content, message):
    with pytest.raises(ConfigError, match=message):
        app_settings(content, "f.json")
