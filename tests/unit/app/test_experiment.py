"""What the platform is given after a training."""

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


def test_what_the_sdk_gets(result, tmp_path):
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


def test_the_sdk_accepts_it(result):
    from supervisely.nn.training import train_app

    app = object.__new__(train_app.TrainApp)
    info = ExperimentInfo.from_checkpoints("RT-DETRv2-S", *result).as_dict()
    assert app._validate_experiment_info(info) == (True, None)


def test_a_training_stopped_before_its_first_evaluation(result):
    config, checkpoints = result
    info = ExperimentInfo.from_checkpoints("S", config, {"last": checkpoints["last"]})
    assert info.as_dict()["best_checkpoint"] == "last.pth"


def test_nothing_to_save(result):
    with pytest.raises(CheckpointError, match="no checkpoint to save; let it run for longer"):
        ExperimentInfo.from_checkpoints("S", result[0], {})


@pytest.mark.parametrize("gone", ["model_config.yml", "checkpoint0004.pth"])
def test_a_missing_file_is_named(result, tmp_path, gone):
    (tmp_path / gone).unlink()
    with pytest.raises(CheckpointError, match=rf"{gone}: is not there; .* train again"):
        ExperimentInfo.from_checkpoints("S", *result)


def test_the_best_is_one_of_the_checkpoints(result):
    config, checkpoints = result
    with pytest.raises(CheckpointError, match=r"other.pth: is not among .*; give one of them"):
        ExperimentInfo(
            model_name="S",
            config=config,
            checkpoints=list(checkpoints.values()),
            best_checkpoint="other.pth",
        )


def test_equal_names_would_overwrite_each_other(result, tmp_path):
    config, checkpoints = result
    twin = tmp_path / "sub" / "best.pth"
    twin.parent.mkdir()
    twin.touch()
    with pytest.raises(CheckpointError, match="share a name.*rename one"):
        ExperimentInfo.from_checkpoints("S", config, {**checkpoints, "twin": twin})


def test_other_files_are_no_checkpoints(result, tmp_path):
    log = tmp_path / "log.jsonl"
    log.touch()
    with pytest.raises(CheckpointError, match=r"log.jsonl: is no checkpoint; .*\.pth"):
        ExperimentInfo.from_checkpoints("S", result[0], {"best": log})
