"""Errors of settings name the file, the line, the key and the value."""

import pytest
import torch

from rtdetrv2.training.options import TrainOptions
from rtdetrv2_pytorch.src.core import ConfigError, YAMLConfig
from rtdetrv2_pytorch.src.core.error_places import line_of_error, naming_overrides
from rtdetrv2_pytorch.src.deploy.detector import load_detector
from supervisely_integration.train.run_config import check_hyperparameters
from tests.random_detectors import save_random_detector
from tests.tiny import CONFIGS

S = CONFIGS / "rtdetrv2" / "rtdetrv2_r18vd_120e_coco.yml"


def included(folder, text):
    """Write part.yml, and main.yml that includes it; returns both."""
    part, main = folder / "part.yml", folder / "main.yml"
    part.write_text(text)
    main.write_text(f"__include__: ['{S}', part.yml]\nepoches: 3\noptimizer: {{betas: [0, 0.9]}}\n")
    return part, main


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("\n\noptimizer:\n  lr: fast\n", 4, "optimizer.lr = 'fast': give a valid number"),
        ("x:\n", 1, "unknown key 'x'"),
        ("# PResNet\nPResNet: {depht: 18}\n", 2, "PResNet: unknown key 'depht'"),
        ("\nbatch_size: -1\n", 2, "batch_size = -1: give a number greater than or equal to 1"),
        ("\noptimizer:\n  params:\n  - {params: a}\n  - {params: b, lr: x}\n", 5, r"params\[1\]"),
        ("\nmodel: AdamW\n", 2, "model = 'AdamW': give RTDETR"),
        ("\nlr_scheduler: {type: StepLR}\n", 2, "unknown component 'StepLR'"),
        ("\neval_spatial_size: [1, 2]\n", 2, r"eval_spatial_size\[0\] = 1"),
        ("\nHybridEncoder:\n  act: {silu: 1}\n", 3, "HybridEncoder.act"),
        ("num_classes: 4\n\nema: {decay: 3, warmups: 5}", 3, "ema.decay = 3"),
    ],
)
def test_error_names_the_included_file_and_the_line(tmp_path, text, line, message):
    part, main = included(tmp_path, text)
    with pytest.raises(ConfigError, match=message) as caught:
        YAMLConfig(main)
    assert str(caught.value).startswith(f"{part}, line {line}: ")


def test_error_names_the_file_that_overrides_the_included_one(tmp_path):
    part, main = included(tmp_path, "epochs: 1\n")
    main.write_text(main.read_text() + "epochs: many\n".replace("epochs", "lr_scheduler"))
    with pytest.raises(ConfigError) as caught:
        YAMLConfig(main)
    assert str(caught.value).startswith(f"{main}, line 4: lr_scheduler: unknown component 'many'")
    main.write_text("epochs: 1\nepoches: 2\n")
    with pytest.raises(ConfigError) as caught:
        YAMLConfig(main)
    assert str(caught.value) == (
        f"{main}: epochs = 1 and epoches = 2: two spellings of one setting; give one of them"
    )


def test_overrides_are_named_instead_of_the_file(tmp_path):
    _, main = included(tmp_path, "optimizer: {lr: fast}\n")
    with pytest.raises(ConfigError, match=r"^overrides: optimizer.lr = 'slow': "):
        YAMLConfig(main, optimizer={"lr": "slow"})
    with pytest.raises(ConfigError, match=r"^-u: optimizer.lr = 'slow': "), naming_overrides("-u"):
        YAMLConfig(main, optimizer={"lr": "slow"})


def test_errors_during_construction_name_the_file(tmp_path):
    part, main = included(tmp_path, "\nPResNet: {depth: 19, pretrained: false}\n")
    with pytest.raises(ConfigError, match="19") as caught:
        _ = YAMLConfig(main).model
    assert str(caught.value).startswith(f"{part}, line 2: PResNet")


def test_configuration_without_a_file_is_named():
    with pytest.raises(ConfigError, match=r"^best\.pth: seed = 'a': give a valid integer"):
        YAMLConfig.from_values({"seed": "a"}, name="best.pth")


@pytest.mark.parametrize(
    ("update", "source"), [(["optimizer.lr=x"], "-u"), (["epochs=3"], None), ([], None)]
)
def test_only_values_of_update_are_named_update(update, source):
    error = ConfigError("optimizer.lr = 'x': give a valid number")
    error.source = "overrides"
    TrainOptions(update=update).name_source(error)
    assert error.source == source


def test_app_names_hyperparameters_or_the_file_of_the_model(tmp_path):
    with pytest.raises(ConfigError) as caught:
        check_hyperparameters("epochs: 3\noptimizer:\n  lr: fast\n", S)
    assert str(caught.value).startswith("hyperparameters, line 3: optimizer.lr = 'fast': give")
    with pytest.raises(ConfigError, match="^hyperparameters: optimizer.lr = 'fast': give"):
        check_hyperparameters({"optimizer": {"lr": "fast"}}, S)
    part, main = included(tmp_path, "PResNet: {depht: 18}\n")
    with pytest.raises(ConfigError) as caught:
        check_hyperparameters("epochs: 3\n", main)
    assert str(caught.value).startswith(f"{part}, line 1: PResNet: unknown key 'depht'")


def test_detector_names_the_given_file_or_the_checkpoint(tmp_path):
    checkpoint = save_random_detector(tmp_path / "best.pth")
    part, main = included(tmp_path, "PResNet: {depht: 18}\n")
    with pytest.raises(ConfigError) as caught:
        load_detector(checkpoint, config=main)
    assert str(caught.value).startswith(f"{part}, line 1: PResNet: unknown key 'depht'")
    content = torch.load(checkpoint)
    content["config"]["PResNet"]["depht"] = 18
    torch.save(content, checkpoint)
    with pytest.raises(ConfigError, match=r"^configuration of best\.pth: PResNet: unknown key"):
        load_detector(checkpoint)


def test_line_of_error_in_lists_and_flow_mappings():
    text = "a: {b: 1,\n  c: 2}\nd:\n- e: 1\n- e: 2\n"
    assert line_of_error(text, "a.c = 2: too large") == 2
    assert line_of_error(text, "d[1].e = 2: too large") == 5
    assert line_of_error(text, "the folder is not writable") is None
