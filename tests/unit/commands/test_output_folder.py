"""A training never replaces the results of another one."""

import io
import json
from pathlib import Path

import pytest
import torch
from rich.console import Console

from rtdetrv2.commands.train import LoggedProgress
from rtdetrv2.terminal.command_log import CommandLog
from rtdetrv2.terminal.console import LiveLine
from rtdetrv2.training.model_table import DEFAULT_CONFIG, MODELS, OBJECTS365, find_model
from rtdetrv2.training.options import TrainOptions
from rtdetrv2.training.output_folder import choose_output
from rtdetrv2.training.plan import plan_run
from rtdetrv2.training.progress import TrainingProgress
from rtdetrv2_pytorch.src.misc.errors import ConfigError
from supervisely_integration.paths import MODELS as APP_MODELS


def save_run(folder: Path, *, epoch: int, data: str = "data") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    config = {"epoches": 5, "train_dataloader": {"dataset": {"img_folder": f"{data}/train"}}}
    torch.save({"progress": {"epoch": epoch}, "config": config}, folder / "last.pth")


def terminal(monkeypatch, answer: str) -> Console:
    monkeypatch.setattr("sys.stdin", io.StringIO(answer))
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    return Console(file=io.StringIO(), force_terminal=True)


def in_console(console: Console) -> LoggedProgress:
    return LoggedProgress(console, CommandLog(console), LiveLine(console))


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_used_folder_gets_an_unused_name_without_a_terminal():
    save_run(Path("out"), epoch=3)
    Path("out-2").mkdir()
    console = Console(file=io.StringIO(), width=500)
    progress = in_console(console)
    assert choose_output(Path("new"), data=None, progress=progress) == (Path("new"), None)
    assert choose_output(Path("out"), data=None, progress=progress) == (Path("out-3"), None)
    assert console.file.getvalue() == (
        "out contains an unfinished training (3 of 5 epochs): writing to out-3. To resume that "
        "training, add --resume; to delete its results, add --overwrite\n"
    )


@pytest.mark.parametrize(
    ("epoch", "data", "answer", "resumed"),
    [
        (3, "data", "\n", True),
        (3, "data", "n\n", False),
        (5, "data", "", False),  # finished
        (3, "other", "", False),
    ],
)
def test_unfinished_training_is_offered_in_a_terminal(monkeypatch, epoch, data, answer, resumed):
    save_run(Path("out"), epoch=epoch)
    progress = in_console(terminal(monkeypatch, answer))
    chosen = choose_output(Path("out"), data=Path(data), progress=progress)
    assert chosen == ((Path("out"), Path("out/last.pth")) if resumed else (Path("out-2"), None))


def test_several_ranks_do_not_choose_a_name(monkeypatch):
    save_run(Path("out"), epoch=3)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="out: contains the results .* --resume.* --overwrite"):
        choose_output(Path("out"), data=None, progress=TrainingProgress())


def plan(**options):
    return plan_run(TrainOptions(device="cpu", **options), TrainingProgress())


def test_resume_without_a_checkpoint_uses_the_output_folder():
    Path("data").mkdir()
    assert plan(data=Path("data"), resume="", name="a").overrides.get("resume") is None
    save_run(Path("output/a"), epoch=3)
    resumed = plan(data=Path("data"), resume="", name="a")
    assert resumed.overrides["resume"] == "output/a/last.pth"
    assert resumed.output_dir == Path("output/a")


def test_settings_are_checked_before_anything_is_written(folder):
    for options in ({"size": 100}, {"update": ["lr=fast"]}, {"model": "XXL"}):
        with pytest.raises(ConfigError):
            plan(sample=True, **options)
    assert list(folder.iterdir()) == []


def test_checkpoint_of_an_experiment_has_its_configuration_in_the_parent_folder():
    save_run(Path("experiment/checkpoints"), epoch=1)
    config = Path("experiment/model_config.yml").absolute()
    config.write_text(f"__include__: ['{DEFAULT_CONFIG}']\n")
    checkpoint = "experiment/checkpoints/last.pth"
    assert plan(tuning=checkpoint).config == config
    assert plan(resume=checkpoint).config == config


def test_models_have_the_files_of_the_apps_table():
    files = {row["Model"]: row["meta"]["model_files"] for row in json.loads(APP_MODELS.read_text())}
    for size, (config, weights) in MODELS.items():
        for name in (size.lower(), f"RT-DETRv2-{size}", f"rtdetrv2-{size}"):
            assert find_model(name) == (DEFAULT_CONFIG.with_name(config), weights)
        assert find_model(config.removesuffix(".yml"))[1] == weights
        if not size.startswith("HGNetv2"):
            assert files[f"RT-DETRv2-{size}"] == {"checkpoint": weights, "config": config}
    for size, weights in OBJECTS365.items():
        name = f"RT-DETRv2-{size}_obj365"
        config, found = find_model(name)
        assert files[name] == {"checkpoint": weights, "config": config.name}
        assert found == weights


def test_weights_are_given_by_name():
    Path("data").mkdir()
    chosen = plan(data=Path("data"), tuning="objects365", model="L")
    assert chosen.overrides["tuning"] == OBJECTS365["L"]
    chosen = plan(data=Path("data"), tuning="coco", config=DEFAULT_CONFIG, name="a")
    assert chosen.overrides["tuning"] == MODELS["S"][1]
    chosen = plan(data=Path("data"), tuning="none")
    assert chosen.overrides["tuning"] == ""
    assert chosen.overrides["PResNet"]["pretrained"] is False
    message = "--weights objects365: not published for M; the models .* are S, L, X. Give"
    with pytest.raises(ConfigError, match=message):
        plan(data=Path("data"), tuning="objects365", model="M")


def test_augmentation_is_given_by_name():
    Path("data").mkdir()
    assert plan(data=Path("data"), augmentation="light").overrides["augmentation"] == "light"
    with pytest.raises(ConfigError, match="augmentation = 'dark': give 'photos', "):
        plan(data=Path("data"), augmentation="dark")


def test_configuration_name_is_a_model():
    Path("data").mkdir()
    chosen = plan(data=Path("data"), model="rtdetrv2_r18vd_sp1_120e_coco")
    assert chosen.config == DEFAULT_CONFIG.with_name("rtdetrv2_r18vd_sp1_120e_coco.yml")
    assert chosen.is_automatic
    with pytest.raises(ConfigError, match="--model '../runtime': unknown; use one of S, M, L"):
        plan(data=Path("data"), model="../runtime")
