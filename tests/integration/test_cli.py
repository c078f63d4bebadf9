"""tools.train on a tiny network."""

import contextlib
import functools
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from PIL import Image

from rtdetrv2.commands import train
from rtdetrv2.training import auto_config, plan
from rtdetrv2.training.data_extent import DataExtent
from rtdetrv2.training.model_table import SAMPLE_CONFIG
from rtdetrv2.training.options import TrainOptions
from rtdetrv2.training.progress import TrainingProgress
from rtdetrv2_pytorch.src.core import YAMLConfig
from rtdetrv2_pytorch.src.core.yaml_files import merge
from rtdetrv2_pytorch.src.data import digits as digits_module
from rtdetrv2_pytorch.src.data.splits import Split
from rtdetrv2_pytorch.src.misc.errors import ConfigError
from rtdetrv2_pytorch.src.misc.weights import load_checkpoint
from tests.terminal import noise
from tests.tiny import CONFIGS, NETWORK, tiny_file

ROOT = Path(__file__).parents[2]


def call(*arguments, cwd):
    """Run the command in this process and capture its output."""
    with (
        contextlib.chdir(cwd),
        contextlib.redirect_stdout(io.StringIO()) as stdout,
        contextlib.redirect_stderr(io.StringIO()) as stderr,
    ):
        code = train.main([*map(str, arguments)])
    return SimpleNamespace(returncode=code, stdout=stdout.getvalue(), stderr=stderr.getvalue())


def contents(folder):
    """Return the bytes of all results of a run."""
    return {path: path.read_bytes() for path in folder.glob("*.pth")}


def configure(options):
    progress = TrainingProgress()
    return plan.configure(options, plan.plan_run(options, progress), progress)


@pytest.fixture(scope="module")
def run(tmp_path_factory, digits):
    """A finished training of the tiny network and its output."""
    folder = tmp_path_factory.mktemp("cli")
    path = tiny_file(folder / "tiny.yml", folder / "out", digits)
    return folder, path, call("-c", path, "-u", "epochs=1", "--seed", 3, cwd=folder)


def test_training_prints_log_and_table(run):
    folder, _, result = run
    assert result.returncode == 0, result.stderr
    assert "epoch=1 step=3/3 loss=" in result.stderr
    assert "best threshold" in result.stdout
    assert "\x1b" not in result.stdout + result.stderr  # no colors without a terminal
    assert "│" not in result.stdout
    assert len(result.stdout.splitlines()) <= 24  # 11 of them are the classes
    assert len(result.stderr.splitlines()) <= 30  # the log
    assert noise(result.stdout) == []
    assert result.stdout.splitlines()[0].startswith("Training on 6 images, evaluating on 4; 10 cl")
    *_, log, title, predict, export = result.stdout.splitlines()
    assert log == str(folder / "out" / "train.log")
    assert title.startswith("Next")
    *start, model, image = shlex.split(predict)[1:]
    assert start == ["-m", "rtdetrv2", "predict"]
    assert (folder / image).is_file()
    assert (folder / model).is_file()
    assert export.endswith("-m rtdetrv2_pytorch.tools.export_onnx -r out/best.pth")
    assert load_checkpoint(folder / "out" / "last.pth")["progress"]["seed"] == 3
    assert "epoch=1 train_loss=" in (folder / "out" / "train.log").read_text()


def test_resume_needs_only_the_checkpoint(run):
    folder, _, _ = run
    result = call("-r", folder / "out" / "last.pth", "-u", "epoches=2", cwd=folder)
    assert result.returncode == 0, result.stderr
    assert "resuming" in result.stderr
    assert load_checkpoint(folder / "out" / "last.pth")["progress"]["epoch"] == 2


def test_test_only_evaluates_a_checkpoint(run):
    folder, path, _ = run
    result = call("-c", path, "-r", folder / "out" / "best.pth", "--test-only", cwd=folder)
    assert result.returncode == 0, result.stderr
    measured = load_checkpoint(folder / "out" / "best.pth")["metrics"]
    row = next(line for line in result.stdout.splitlines() if "│ all" in line or "all " in line)
    assert f"{measured['AP50']:.3f}" in row


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-u", "PResNet.freez_norm=true"], "ConfigError: -u: PResNet: unknown key 'freez_norm'"),
        (["-u", "epoches"], "expected key=value"),
        (["-t", "missing.pth"], "CheckpointError: missing.pth: no such file"),
        (["--data", "nowhere"], "DatasetError: nowhere: no such folder"),
        (["-u", "num_classes=4"], "num_classes = 4, but"),
        (["--output-dir", "tiny.yml/x"], "output_dir = 'tiny.yml/x': not writable"),
        (["--test-only"], "CheckpointError: tiny.yml: no weights to evaluate"),
    ],
)
def test_errors_are_one_line_without_traceback(run, arguments, message):
    folder, path, _ = run
    before = contents(folder / "out")
    result = call("-c", path, *arguments, "--overwrite", cwd=folder)
    assert contents(folder / "out") == before  # a rejected run changes nothing
    assert result.returncode == 1
    assert message in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
    error, *rest = [line for line in result.stderr.splitlines() if not line.startswith("20")]
    assert re.match(r"[A-Z]\w+Error: ", error)
    log = folder / "out" / "train.log"
    assert rest in ([], ["Log:", str(log)])
    if rest:  # the output folder was already set
        assert message.split(": ")[0] in log.read_text()


def test_missing_compiler_is_reported(run, tmp_path, monkeypatch):
    folder, path, _ = run
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CXX", "none")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "kernels"))
    result = call("-c", path, "-u", "compile=true", "--output-dir", tmp_path / "out", cwd=folder)
    assert result.returncode == 1
    message = " ".join(result.stderr.split())
    assert "ConfigError: compile = true: torch.compile failed" in message
    assert "install a C++ compiler (g++), or remove compile" in message
    assert "Traceback" not in message


def test_usage_error_without_data(tmp_path):
    result = call(cwd=tmp_path)
    assert result.returncode == 2
    assert "give a configuration (-c), a dataset (--data or --sample), or a check" in result.stderr


def test_data_folder_sets_both_datasets(run, digits):
    folder, path, _ = run
    values = yaml.safe_load(path.read_text())
    for split in ("train", "val"):
        values[f"{split}_dataloader"].pop("dataset")
    bare = folder / "bare.yml"
    bare.write_text(yaml.safe_dump(values))
    out = folder / "from_folder"
    result = call("-c", bare, "--data", digits, "--output-dir", out, "-u", "epoches=1", cwd=folder)
    assert result.returncode == 0, result.stderr
    note = "Splits of the data: training train (6 images), validation val (4 images)"
    assert result.stdout.count(note) == 1
    assert load_checkpoint(out / "best.pth")["class_names"] == list("0123456789")
    report = json.loads((out / "data_report.json").read_text())
    assert [split["images"]["used"] for split in report["splits"]] == [6, 4]
    assert (out / "data_report.html").is_file()


def test_unusable_data_is_rejected_before_training(run, digits, tmp_path):
    folder, path, _ = run
    data = tmp_path / "data"
    shutil.copytree(digits, data)
    for picture in (data / "val").iterdir():
        picture.write_bytes(b"")
    result = call("-c", path, "--data", data, "--output-dir", tmp_path / "out", cwd=folder)
    assert result.returncode == 1
    assert "DatasetError: " in result.stderr
    assert "Traceback" not in result.stderr
    assert not list((tmp_path / "out").glob("*.pth"))


def test_unwritable_data_report_names_its_folder(run, digits, tmp_path):
    _, path, _ = run
    (tmp_path / "data_report.json").mkdir()
    options = ["--data", digits, "--output-dir", tmp_path]
    result = call("-c", path, *options, cwd=tmp_path)
    assert result.returncode == 1
    expected = f"ConfigError: {tmp_path}: could not write the data report (Is a directory)"
    assert expected in " ".join(result.stderr.split())


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_signal_to_all_processes_saves_last(request, tmp_path, digits, number):
    """Both also reach the workers, which must leave the shutdown to the main process."""
    path = tiny_file(
        tmp_path / "tiny.yml",
        tmp_path / "out",
        digits,
        epoches=10000,
        checkpoint_freq=0,
        train_dataloader={"num_workers": 1},
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "rtdetrv2_pytorch.tools.train", "-c", str(path)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # nohup and shells ignore it
    )
    request.addfinalizer(process.kill)
    log = tmp_path / "out" / "log.jsonl"
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and not (log.is_file() and '"step"' in log.read_text()):
        assert process.poll() is None, process.communicate()
        time.sleep(0.2)
    os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert "stopping after the current batch and saving" in errors
    assert "Traceback" not in errors
    epochs = [json.loads(line) for line in log.read_text().splitlines()]
    progress = load_checkpoint(tmp_path / "out" / "last.pth")["progress"]
    last_step = [e for e in epochs if e["event"] == "step"][-1]
    done = progress["epoch"] * 3 + progress["step"]
    assert done == last_step["global_step"]


# Overrides for random weights in both backbones.
RANDOM_BACKBONE = {"PResNet": {"pretrained": False}, "HGNetv2": {"pretrained": False}}


@pytest.fixture
def probed(tmp_path, digits, monkeypatch):
    """Overrides of a small network on the digits, for a schedule of half a second."""
    monkeypatch.setattr(auto_config, "CPU_BUDGET_S", 0.5)
    splits = (
        Split(s, digits / "annotations" / f"instances_{s}.json", digits / s)
        for s in ("train", "val")
    )
    overrides = merge(merge(NETWORK, RANDOM_BACKBONE), auto_config.data_overrides(*splits))
    return merge(overrides, {"output_dir": str(tmp_path / "run")})


@pytest.mark.parametrize(
    ("given", "augmentation", "balanced_paste"),
    [({}, "none", 0.5), ({"augmentation": None}, None, None)],
)
def test_fit_to_cpu_times_steps_and_chooses_epochs(
    tmp_path, probed, given, augmentation, balanced_paste
):
    chosen, message = auto_config.fit_to_cpu(SAMPLE_CONFIG, merge(probed, given))
    assert chosen["eval_spatial_size"] == [256, 256]  # the images are 320 wide
    assert chosen["epoches"] >= 1
    assert re.search(rf"\b{chosen['epoches']} epochs? of 1 step at \d", message)
    assert chosen["RTDETRTransformerv2"]["num_queries"] == 12  # the given value is kept
    assert chosen["augmentation"] == augmentation
    assert chosen.get("balanced_paste") == balanced_paste
    assert chosen["optimizer"]["lr"] == 0.0005
    assert not any(tmp_path.iterdir())


def test_fit_to_cpu_keeps_the_recipe_with_a_pretrained_backbone(tmp_path, probed):
    """The choices for random weights are not applied."""
    backbone = YAMLConfig(SAMPLE_CONFIG, **probed).model.backbone
    path = tmp_path / "backbone.pth"
    torch.save(backbone.state_dict(), path)
    probed = merge(probed, {"PResNet": {"pretrained": str(path)}})
    chosen, _ = auto_config.fit_to_cpu(SAMPLE_CONFIG, probed)
    assert not {"augmentation", "balanced_paste", "optimizer"} & set(chosen)
    assert chosen["train_dataloader"]["total_batch_size"] == 4


@pytest.mark.parametrize(
    ("mean_boxes", "is_from_scratch", "optimizer"),
    [
        (2.4, True, {"lr": 0.0002}),  # 9.6 boxes per batch of four
        (2.5, True, {"lr": 0.0005}),
        (0.0, True, {"lr": 0.0002}),
        (2.4, False, None),  # that of the recipe
    ],
)
def test_learning_rate_from_random_weights_depends_on_boxes(mean_boxes, is_from_scratch, optimizer):
    extent = DataExtent(longest_side=640, max_boxes=9, mean_boxes=mean_boxes)
    chosen = auto_config.cpu_overrides(extent, is_from_scratch=is_from_scratch)
    assert chosen.get("optimizer") == optimizer


OWN_OPERATIONS = {
    "train_dataloader": {"dataset": {"transforms": {"ops": [{"type": "Resize"}]}}},
}


@pytest.mark.parametrize(
    ("epochs", "num_boxes", "given", "chosen"),
    [
        (40, 499, {}, {"augmentation": "none", "balanced_paste": 0.5}),
        (40, 500, {}, {}),
        (41, 1, {}, {}),
        (2, 9_999, {"seed": 1}, {"augmentation": "none", "balanced_paste": 0.5}),
        (1, 19_999, {}, {"augmentation": "none", "balanced_paste": 0.5}),
        # The user's choice replaces "none", and nothing is pasted.
        (40, 499, {"augmentation": "light"}, {"augmentation": "none"}),
        (40, 499, {"augmentation": None}, {"augmentation": "none"}),
        (40, 499, {"recipe": "dense"}, {"augmentation": "none"}),
        # Own operations, and epochs of strong augmentation, are not replaced.
        (40, 499, OWN_OPERATIONS, {}),
        (40, 499, {"train_dataloader": {"dataset": {"transforms": {"policy": {"epoch": 9}}}}}, {}),
    ],
)
def test_short_trainings_from_random_weights_paste_objects(epochs, num_boxes, given, chosen):
    rule = auto_config.scratch_augmentation
    values = rule(epochs=epochs, num_boxes=num_boxes, num_classes=2, given=given)
    assert values == chosen
    values = rule(epochs=epochs, num_boxes=num_boxes, num_classes=1, given=given)
    assert values == {key: value for key, value in chosen.items() if key != "balanced_paste"}


def test_fit_to_cpu_rejects_several_ranks(digits, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    options = TrainOptions(data=digits, device="cpu")
    with pytest.raises(ConfigError, match=r"for one process; .* a configuration with -c"):
        configure(options)


def test_initial_weights_without_network_are_random(monkeypatch):
    monkeypatch.setattr(auto_config, "COCO_WEIGHTS", "http://127.0.0.1:9/none.pth")
    chosen, message = auto_config.initial_weights()
    assert chosen == RANDOM_BACKBONE
    assert "Training from random weights" in message
    assert "put the file at" in message


def test_initial_weights_from_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    cache = tmp_path / ".cache" / "supervisely" / "checkpoints"
    cache.mkdir(parents=True)
    (cache / "s.pth").touch()
    monkeypatch.setattr(auto_config, "COCO_WEIGHTS", "https://weights.example/s.pth")
    chosen, _ = auto_config.initial_weights()
    assert chosen == {"tuning": str(cache / "s.pth")}


def test_initial_weights_with_another_digest_are_not_used(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    cache = tmp_path / ".cache" / "supervisely" / "checkpoints"
    cache.mkdir(parents=True)
    (cache / Path(auto_config.COCO_WEIGHTS).name).touch()
    chosen, message = auto_config.initial_weights()
    assert chosen == RANDOM_BACKBONE
    assert "its SHA-256 is e3b0c44298fc1c14" in message


def test_options_become_overrides():
    words = ["-c", "x.yml", "--no-amp", "--device", "cpu", "-u", "epochs=4", "-u", "ema.decay=0.9"]
    params = train.main.make_context("train", words).params
    params.pop("no_doctor")
    assert TrainOptions(**params).overrides() == {
        "use_amp": False,
        "device": "cpu",
        "epoches": 4,
        "time_budget": None,  # that of the file does not choose another number
        "ema": {"decay": 0.9},
    }
    assert "time_budget" not in TrainOptions(size=64).overrides()
    both = TrainOptions(update=["epochs=4", "time_budget=2h"]).overrides()
    assert (both["epoches"], both["time_budget"]) == (4, "2h")


def test_yolo_folder_is_converted(tmp_path):
    folder, output = tmp_path / "pets", tmp_path / "out"
    for number, split in ((1, "train"), (0, "val")):
        for part in ("images", "labels"):
            (folder / part / split).mkdir(parents=True)
        Image.new("RGB", (40, 30)).save(folder / "images" / split / "a.png")
        (folder / "labels" / split / "a.txt").write_text(f"{number} 0.5 0.5 0.5 0.2")
    (folder / "data.yaml").write_text(
        "names: [cat, dog, unused]\ntrain: images/train\nval: images/val"
    )
    config = CONFIGS / "rtdetrv2" / "rtdetrv2_r18vd_120e_coco.yml"
    options = TrainOptions(config=config, data=folder, output_dir=str(output), device="cpu")
    cfg, splits = configure(options)
    ann_file = output / "converted_annotations" / "instances_train.json"
    assert splits.train.ann_file == ann_file
    assert cfg.yaml_cfg["train_dataloader"]["dataset"]["ann_file"] == str(ann_file)
    assert cfg.class_names == ["cat", "dog"]
    assert cfg.train_dataset.annotations.boxes_xyxy.tolist() == [[10, 12, 30, 18]]


def test_sample_is_generated_in_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        auto_config, "initial_weights", lambda url: ({"PResNet": {"pretrained": False}}, "")
    )
    few = functools.partial(digits_module.make_digits_dataset, num_train=6, num_val=4)
    monkeypatch.setattr(digits_module, "make_digits_dataset", few)
    options = TrainOptions(sample=True, test_only=True, device="cpu")
    cfg, _ = configure(options)
    assert len(cfg.val_dataset) == 4
    assert cfg.class_names == list("0123456789")
    assert cfg.output_dir == Path("output/sample_digits")
