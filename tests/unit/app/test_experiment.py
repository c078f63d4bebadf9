"""The files of a training, as the SDK receives them."""

import pytest

from rtdetrv2_pytorch.src.misc.errors import CheckpointError
from supervisely_integration.train.experiment import ExperimentInfo


@pytest.fixture
def result(tmp_path):
    """Files of a finished training by name, and its configuration."""
    checkpoints = {name: tmp_path / f"{name}.pth" for name in ("best", "checkpoint0004", "last")}
    for path in checkpoints.values():
        path.touch()
    config = tmp_path / "model_config.yml"
    config.touch()
    return config, checkpoints


def test_dict_for_the_sdk(result, tmp_path):
    config, checkpoints = result
    assert ExperimentInfo.from_checkpoints("RT-DETRv2-S", config, checkpoints).as_dict() == {
        "model_name": "RT-DETRv2-S",
        "task_type": "object detection",
        "model_files": {"config": str(config)},
        "checkpoints": [
            str(tmp_path / f"{name}.pth") for name in ("best", "checkpoint0004", "last")
        ],
        "best_checkpoint": "best.pth",
    }


def test_sdk_accepts_the_dict(result):
    from supervisely.nn.training import train_app

    app = object.__new__(train_app.TrainApp)
    info = ExperimentInfo.from_checkpoints("RT-DETRv2-S", *result).as_dict()
    assert app._validate_experiment_info(info) == (True, None)


def test_last_checkpoint_replaces_a_missing_best(result):
    config, checkpoints = result
    info = ExperimentInfo.from_checkpoints("S", config, {"last": checkpoints["last"]})
    assert info.as_dict()["best_checkpoint"] == "last.pth"


def test_training_without_a_checkpoint_is_rejected(result):
    with pytest.raises(CheckpointError, match="saved no checkpoint; train for longer"):
        ExperimentInfo.from_checkpoints("S", result[0], {})
