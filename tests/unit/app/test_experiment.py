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


@pytest.mark.parametrize("gone", ["model_config.yml", "checkpoint0004.pth"])
def test_missing_files_are_named(result, tmp_path, gone):
    (tmp_path / gone).unlink()
    with pytest.raises(CheckpointError, match=rf"{gone}: not found; .* train again"):
        ExperimentInfo.from_checkpoints("S", *result)


def test_best_has_to_be_one_of_the_checkpoints(result):
    config, checkpoints = result
    with pytest.raises(CheckpointError, match=r"other.pth: not one of .*; give one of them"):
        ExperimentInfo(
            model_name="S",
            config=config,
            checkpoints=list(checkpoints.values()),
            best_checkpoint="other.pth",
        )


def test_equal_names_are_rejected(result, tmp_path):
    config, checkpoints = result
    twin = tmp_path / "sub" / "best.pth"
    twin.parent.mkdir()
    twin.touch()
    with pytest.raises(CheckpointError, match="share a name.*rename one"):
        ExperimentInfo.from_checkpoints("S", config, {**checkpoints, "twin": twin})


def test_other_files_are_rejected(result, tmp_path):
    log = tmp_path / "log.jsonl"
    log.touch()
    with pytest.raises(CheckpointError, match=r"log.jsonl: not a checkpoint; .*\.pth"):
        ExperimentInfo.from_checkpoints("S", result[0], {"best": log})
