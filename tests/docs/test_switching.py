"""docs/switching.md: every row of its tables is executed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
import torch
from torch import nn

import hubconf
from rtdetrv2.cli import main as product
from rtdetrv2.commands import export_onnx, export_trt, train
from rtdetrv2.commands.public_arguments import EXPORT_ONNX, EXPORT_TRT, TRAIN, translate
from rtdetrv2_pytorch.src.core import YAMLConfig, catalog
from rtdetrv2_pytorch.src.core.yaml_files import parse_overrides, read_layers
from rtdetrv2_pytorch.src.deploy.detector import load_detector
from rtdetrv2_pytorch.src.deploy.onnx import INPUTS, OUTPUTS
from rtdetrv2_pytorch.src.misc.errors import ConfigError
from rtdetrv2_pytorch.src.solver.checkpointing import CheckpointWriter
from tests.random_detectors import save_random_detector
from tests.tiny import CONFIGS, NETWORK, tiny_config, tiny_values

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "switching.md").read_text()
RECIPE = CONFIGS / "rtdetrv2" / "rtdetrv2_r18vd_120e_coco.yml"


def rows(heading: str) -> list[tuple[str, str]]:
    """Return both cells of each row below a heading."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [tuple(cell.strip() for cell in line.strip("|").split(" | ")) for line in lines]


def lines_of(heading: str) -> list[tuple[str, str]]:
    """Return (argument, result) for each argument of a table."""
    return [
        (line, result) for cell, result in rows(heading) for line in re.findall("`(.*?)`", cell)
    ]


def parsed(command: click.Command, arguments: list[str]) -> dict:
    return command.make_context("script", arguments).params


def output(capsys) -> str:
    return "".join(capsys.readouterr())


# Arguments


TRAIN_VALUES = {
    "-c": ("config", Path("my.yml")),
    "-r": ("resume", "last.pth"),
    "-t": ("tuning", "best.pth"),
    "-d": ("device", "cuda"),
    "--seed": ("seed", 0),
    "--use-amp": ("use_amp", True),
    "--output-dir": ("output_dir", "out"),
    "--test-only": ("test_only", True),
}
SAME = {
    "--config": "-c",
    "--resume": "-r",
    "--tuning": "-t",
    "--device": "-d",
    "--amp": "--use-amp",
}


@pytest.mark.parametrize(("line", "result"), lines_of("tools/train.py"))
def test_arguments_of_train(line, result, capsys):
    name = re.split("[ =]", line)[0]
    params = parsed(train.main, translate(line.split(), TRAIN))
    assert ("is ignored: " in output(capsys)) == result.startswith("ignored")
    if "wandb" in name and not result.startswith("ignored"):
        assert parse_overrides(params["update"]) == {"loggers": ["tensorboard", "wandb"]}
    elif name in ("-u", "--update", "--summary-dir"):
        expected = {"summary_dir": "logs"} if "summary" in name else {"epoches": 2}
        if "lr" in line:
            expected["optimizer"] = {"lr": 0.001}
        assert parse_overrides(params["update"]) == expected
    elif not result.startswith("ignored"):
        key, value = TRAIN_VALUES[SAME.get(name, name)]
        assert params[key] == value


@pytest.mark.parametrize(("line", "result"), lines_of("tools/export_onnx.py"))
def test_arguments_of_export_onnx(line, result, capsys):
    if result.startswith("refused"):
        with pytest.raises(click.UsageError, match="YAML file that includes the configuration"):
            translate(line.split(), EXPORT_ONNX)
        return
    required = [] if line.startswith(("-r", "--resume")) else ["-r", "other.pth"]
    params = parsed(export_onnx.main, [*required, *translate(line.split(), EXPORT_ONNX)])
    assert ("is ignored: " in output(capsys)) == result.startswith("ignored")
    expected = {"c": Path("my.yml"), "r": "best.pth", "o": Path("model.onnx"), "s": (640, 640)}
    found = {"c": "config", "r": "resume", "o": "output", "s": "size"}
    letter = {"output_file": "o", "input_size": "s", "config": "c", "resume": "r"}
    name = line.split()[0].lstrip("-")
    if not result.startswith("ignored"):
        name = letter.get(name, name)
        assert params[found[name]] == expected[name]


@pytest.mark.parametrize(("line", "result"), lines_of("tools/export_trt.py"))
def test_arguments_of_export_trt(line, result, capsys):
    required = [] if "onnx" in line else ["-r", "other.pth"]
    params = parsed(export_trt.main, [*required, *translate(line.split(), EXPORT_TRT)])
    assert ("is ignored: " in output(capsys)) == result.startswith("ignored")
    if "--batch-sizes" in result:
        sizes = re.search(r"--batch-sizes (\d+) (\d+) (\d+)", result).groups()
        assert params["batch_sizes"] == tuple(map(int, sizes))
    elif "onnx" in line:
        assert params["resume"] == "model.onnx"
    elif "engine" in line:
        assert params["output"] == Path("model.engine")


def test_missing_and_invalid_values_are_named():
    with pytest.raises(click.UsageError, match="--summary-dir: give a value"):
        translate(["--summary-dir"], TRAIN)
    with pytest.raises(click.UsageError, match="-Mb many: give a number"):
        translate(["-Mb", "many"], EXPORT_TRT)


@pytest.mark.parametrize(
    ("cwd", "script"),
    [
        (".", ["rtdetrv2_pytorch/tools/train.py"]),
        ("rtdetrv2_pytorch", ["tools/train.py"]),
        (
            "rtdetrv2_pytorch",  # as `torchrun`
            ["-m", "torch.distributed.run", "--nproc-per-node=1", "tools/train.py"],
        ),
    ],
)
def test_scripts_run_as_files(cwd, script):
    """From both folders, without the package on the path."""
    run = subprocess.run(
        [sys.executable, *script, "-c", "missing.yml", "--print-rank=0"],
        cwd=ROOT / cwd,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 1
    assert "missing.yml: could not read" in run.stdout + run.stderr
    assert "--print-rank is ignored" in run.stdout + run.stderr


# Habits


DEPLOY_SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
import torch
from src.core import YAMLConfig



class Model(torch.nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.model = cfg.model.deploy()
        self.postprocessor = cfg.postprocessor.deploy()

    def forward(self, images, orig_target_sizes):
        return self.postprocessor(self.model(images), orig_target_sizes)


for name in sys.argv[3:]:
    cfg = YAMLConfig(sys.argv[2], resume=name)
    checkpoint = torch.load(name, map_location="cpu")
    state = checkpoint["ema"]["module"] if "ema" in checkpoint else checkpoint["model"]
    cfg.model.load_state_dict(state)
    images = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    torch.save(Model(cfg)(images, torch.tensor([[640, 480]])), name + ".results")
"""


@pytest.fixture(scope="module")
def public(tmp_path_factory) -> tuple[Path, Path]:
    """A YAML file and a checkpoint with the entries of the public trainer, anchors included.

    Both best.pth below it hold the same EMA weights, as this package writes them.
    """
    folder = tmp_path_factory.mktemp("public")
    ours = save_random_detector(folder / "ours.pth", size_hw=(64, 96), network=NETWORK)
    content = torch.load(ours, weights_only=True)
    cfg = YAMLConfig.from_values(content["config"], name="ours")
    (folder / "my.yml").write_text(yaml_of(content["config"]))
    state = {k: torch.zeros(1) for k in cfg.model.state_dict() if k.endswith("anchors")}
    state |= content["model"]
    torch.save(
        {"date": "2025", "last_epoch": 3, "model": state, "ema": {"module": state, "updates": 9}},
        folder / "public.pth",
    )
    content["ema"] = {"module": content["model"], "updates": 9}
    content["model"] = {k: torch.zeros_like(v) for k, v in content["model"].items()}
    options = {"checkpoint_freq": 0, "keep_last": 0, "save_optimizer": False}
    for name, save_ema in (("trained", True), ("reduced", False)):
        (folder / name).mkdir()
        CheckpointWriter(folder / name, save_ema=save_ema, **options).save_best(content)
    return folder / "my.yml", folder / "public.pth"


def yaml_of(values: dict) -> str:
    import yaml

    return yaml.safe_dump(values)


@pytest.fixture(scope="module")
def script_results(public, tmp_path_factory) -> dict[Path, list[torch.Tensor]]:
    """Labels, boxes and scores of a script for the public trainer, by checkpoint."""
    folder = tmp_path_factory.mktemp("script")
    (folder / "infer.py").write_text(DEPLOY_SCRIPT)
    checkpoints = [public[1], *sorted(public[1].parent.glob("*/best.pth"))]
    arguments = [ROOT / "rtdetrv2_pytorch", public[0], *checkpoints]
    run = subprocess.run(
        [sys.executable, folder / "infer.py", *arguments],
        cwd=folder,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    return {each: torch.load(f"{each}.results") for each in checkpoints}


class Mine(nn.Module):
    """A model of a user."""

    def __init__(self, *, width: int = 3) -> None:
        super().__init__()
        self.width = width


def check_script(public, results, **_):
    config, checkpoint = public
    detector, _ = load_detector(checkpoint, config=config, class_names=["cat", "dog", "owl"])
    images = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    mine = detector(images, torch.tensor([[640, 480]]))
    assert [path.parent.name for path in results][1:] == ["reduced", "trained"]
    for found in results.values():
        torch.testing.assert_close(mine, tuple(found))
        assert found[1].shape == (1, 20, 4)


def check_released(public, results, **_):
    check_script(public, results)
    cfg = YAMLConfig(public[0])
    cfg.model.load_state_dict(torch.load(public[1], weights_only=True)["model"])


def check_includes(tmp_path, **_):
    file = tmp_path / "mine.yml"
    file.write_text(f"__include__: ['{RECIPE}']\nepoches: 3\n")
    assert YAMLConfig(file).epoches == 3
    assert len(read_layers(RECIPE)) > 3


def check_spellings(**_):
    cfg = YAMLConfig(
        RECIPE,
        epochs=5,
        train_dataloader={"collate_fn": {"type": "BatchImageCollateFuncion"}},
    )
    assert cfg.epoches == 5


def check_classes(tmp_path, digits, **_):
    cfg = tiny_config(tmp_path, digits)
    cfg._resolve_classes()
    assert cfg.yaml_cfg["num_classes"] == len(cfg.class_names) < 80
    assert cfg.yaml_cfg["remap_mscoco_category"] is False
    cfg = tiny_config(tmp_path, digits, num_classes=777)
    with pytest.raises(ConfigError, match=r"num_classes = 777, but .*remove num_classes"):
        cfg._resolve_classes()


def check_v1(**_):
    with pytest.raises(ConfigError, match="RT-DETR v1 is not supported"):
        YAMLConfig(RECIPE, model={"type": "RTDETRTransformer"})


def check_components(tmp_path, digits, monkeypatch, **_):
    values = {**tiny_values(tmp_path, digits), "model": "Mine", "Mine": {"width": 7}}
    with pytest.raises(ConfigError, match="unknown key 'Mine'"):
        YAMLConfig(RECIPE, **values)
    monkeypatch.setitem(catalog.COMPONENTS, "Mine", Mine)
    monkeypatch.setitem(catalog.ROLES, "model", ("RTDETR", "Mine"))
    assert YAMLConfig(RECIPE, **values).model.width == 7
    cfg = tiny_config(tmp_path, digits)
    cfg.model = Mine(width=9)
    assert cfg.model.width == 9


def check_hub(public, **_):
    model = torch.hub.load(str(ROOT), "rtdetrv2_r18vd", source="local")
    labels, boxes, scores = model(torch.rand(1, 3, 64, 64), torch.tensor([[64, 64]]))
    assert boxes.shape == (1, 300, 4)
    assert scores.max() < 0.2  # random weights: the initial scores
    for name in ("rtdetrv2_r34vd", "rtdetrv2_r50vd_m", "rtdetrv2_r50vd", "rtdetrv2_r101vd"):
        assert callable(getattr(hubconf, name))
    opened = torch.hub.load(
        str(ROOT), "rtdetrv2", public[1].with_name("ours.pth"), source="local", device="cpu"
    )
    assert opened.class_names == ("cat", "dog", "owl")


def check_profile(public, capsys, **_):
    assert product(["profile", "-c", str(public[0])]) == 0
    assert re.search(r"parameters: [\d,]+ .*GFLOPs", output(capsys), re.DOTALL)


def check_onnx_names(**_):
    assert (tuple(INPUTS), tuple(OUTPUTS)) == (
        ("images", "orig_target_sizes"),
        ("labels", "boxes", "scores"),
    )


HABITS = {
    "`from src.core": check_script,
    "`cfg.model.load_state_dict": check_script,
    "`cfg.model.deploy": check_script,
    "a released checkpoint": check_released,
    "`__include__`": check_includes,
    "`epochs`": check_spellings,
    "`num_classes`": check_classes,
    "configurations of RT-DETR v1": check_v1,
    "`@register()`": check_components,
    "`torch.hub.load": check_hub,
    "`tools/run_profile.py": check_profile,
    "ONNX inputs": check_onnx_names,
}


@pytest.mark.parametrize("habit", [row[0] for row in rows("Habits")])
def test_habits(habit, public, script_results, tmp_path, digits, monkeypatch, capsys):
    (check,) = {check for start, check in HABITS.items() if habit.startswith(start)}
    check(
        public=public,
        results=script_results,
        tmp_path=tmp_path,
        digits=digits,
        monkeypatch=monkeypatch,
        capsys=capsys,
    )
