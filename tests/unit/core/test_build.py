"""Checking and building components from sections."""

from typing import Literal

import pytest

from rtdetrv2_pytorch.src.core import ConfigError, build
from rtdetrv2_pytorch.src.core.build import Sections, convert, suggest
from rtdetrv2_pytorch.src.data.augment.compose import Compose, Policy
from rtdetrv2_pytorch.src.data.augment.geometric import RandomZoomOut, Resize
from rtdetrv2_pytorch.src.misc.ranges import Decay, PositiveFloat, PositiveInt
from tests.tiny import tiny_config


def test_convert_parses_numbers_from_strings():
    assert convert("1e-4", float, "lr") == 1e-4
    assert convert([640, 320], tuple[int, int], "size") == (640, 320)
    assert convert("path.pth", bool | str, "pretrained") == "path.pth"
    assert convert(True, bool | str, "pretrained") is True


@pytest.mark.parametrize(
    ("value", "hint", "message"),
    [
        ("256x", int, r"D = '256x': give a valid integer, unable to parse string"),
        (2.5, int, r"D = 2.5: give a valid integer"),
        (True, int, r"D = True: give a number"),
        ("v1", Literal["v2"], r"D = 'v1': give 'v2'"),
        ([1, "x"], list[int], r"D\[1\] = 'x': give a valid integer"),
        (-1, PositiveFloat, r"D = -1: give a number greater than 0"),
        (float("inf"), float, r"D = inf: give a finite number"),
        ([0.9, 1.0], tuple[Decay, Decay], r"D\[1\] = 1.0: give a number less than 1"),
        ([0.9], tuple[float, float], r"D = \[0.9\]: give more than 1 value"),
        (640, tuple[int, int] | None, r"D = 640: give a list of 2 values"),
        ("a", tuple[str, ...], r"D = 'a': give a list$"),
        (0, PositiveInt | Literal["auto"], r"D = 0: give a number greater than or equal to 1"),
        ({"name": "never"}, Policy, r"D.name = 'never': give 'default' or 'stop_epoch'"),
    ],
)
def test_convert_errors_name_place_value_and_reason(value, hint, message):
    with pytest.raises(ConfigError, match=message):
        convert(value, hint, "D")


def test_suggest_close_words_or_the_three_nearest():
    assert suggest("freez_norm", ["freeze_norm", "depth"]) == "; did you mean 'freeze_norm'?"
    assert suggest("lr_rate", ["lr_rates", "lr_ratio"]) == (
        "; did you mean 'lr_rates' or 'lr_ratio'?"
    )
    assert suggest("depht", ["seed", "size", "lr", "name"]) == "; the nearest are size, seed, name"


def test_inline_keys_override_named_section():
    sections = Sections({"RandomZoomOut": {"fill": 3, "p": 0.25}}, {})
    built = sections.construct({"type": "RandomZoomOut", "p": 1.0}, "here")
    assert isinstance(built, RandomZoomOut)
    assert (built.fill, built.p) == (3, 1.0)


def test_list_of_components_is_built_in_order():
    sections = Sections({}, {})
    ops = [{"type": "Resize", "size": [64, 32]}, {"type": "RandomZoomOut"}]
    compose = sections.construct({"type": "Compose", "ops": ops}, "transforms")
    assert isinstance(compose, Compose)
    assert [type(op) for op in compose.ops] == [Resize, RandomZoomOut]
    assert compose.ops[0].size == [64, 32]


def test_alias_of_misspelled_collate_function():
    sections = Sections({}, {})
    assert sections.construct("BatchImageCollateFuncion", "collate_fn").scales is None


@pytest.mark.parametrize("section", ["640", [640], 640])
def test_section_must_be_a_mapping(section):
    with pytest.raises(ConfigError, match="Resize = .*640.*: give its keys with their values"):
        Sections({"Resize": section}, {}).check("Resize", "op")


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ("Resise", r"op: unknown component 'Resise'; did you mean 'Resize'\?"),
        ({"size": 3}, "op = .*: give a component's name, or {type: name}"),
        ({"type": "Resize", "sise": 3}, r"op: unknown key 'sise'; did you mean 'size'\?"),
        ({"type": "Resize"}, "Resize: 'size' is required"),
        ({"type": "Resize", "size": "big"}, "op.size = 'big': give a valid integer"),
        ({"type": "RandomZoomOut", "side_range": [3, 2]}, "RandomZoomOut: side_range"),
    ],
)
def test_construct_errors_name_the_place(description, message):
    with pytest.raises(ConfigError, match=message):
        Sections({}, {}).construct(description, "op")


def test_check_builds_nothing(monkeypatch):
    def explode(**kwargs):
        raise AssertionError("built")

    monkeypatch.setitem(build.COMPONENTS, "Resize", explode)
    Sections({}, {}).check({"type": "Compose", "ops": []}, "transforms")


def test_shared_value_overrides_section_and_conflict_is_listed():
    sections = Sections(
        {"RTDETRPostProcessor": {"num_classes": 5, "num_top_queries": 7}}, {"num_classes": 3}
    )
    built = sections.construct("RTDETRPostProcessor", "postprocessor")
    assert (built.num_classes, built.num_top_queries) == (3, 7)
    assert sections.conflicts() == [
        "RTDETRPostProcessor.num_classes = 5 is overridden by top-level num_classes = 3"
    ]


def test_equal_shared_value_is_not_a_conflict():
    sections = Sections(
        {"HybridEncoder": {"eval_spatial_size": [64, 32]}}, {"eval_spatial_size": (64, 32)}
    )
    assert sections.conflicts() == []


def test_unknown_key_of_typed_dict_gets_suggestion():
    with pytest.raises(ConfigError, match=r"D: unknown key 'epcoh'; did you mean 'epoch'\?"):
        convert({"name": "stop_epoch", "epcoh": 3}, Policy | None, "D")


def test_parameter_rules_are_converted():
    rules = Sections({}, {}).parameter_rules({"type": "AdamW"}, [{"params": "x", "lr": "1e-5"}])
    assert rules == [{"params": "x", "lr": 1e-5}]
    frozen = [{"params": "x", "lr": 0}]
    assert Sections({}, {}).parameter_rules({"type": "AdamW"}, frozen) == frozen


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ("x", r"optimizer.params = 'x': give a list"),
        ([{"lr": 1}], r"optimizer.params\[0\] = .*: give a mapping with 'params'"),
        ([{"params": "x", "lrr": 1}], r"optimizer.params\[0\]: unknown key 'lrr'; did you mean"),
        ([{"params": "x", "lr": "y"}], r"optimizer.params\[0\].lr = 'y': give a valid"),
        ([{"params": "(x"}], r"optimizer.params\[0\].params = '\(x': not a regular expression"),
    ],
)
def test_invalid_parameter_rules_are_rejected(rules, message):
    with pytest.raises(ConfigError, match=message):
        Sections({}, {}).parameter_rules("AdamW", rules)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model": "AdamW"}, r"model = 'AdamW': give RTDETR$"),
        ({"criterion": "PResNet"}, r"criterion = 'PResNet': give RTDETRCriterionv2$"),
        ({"optimizer": {"type": "PResNet"}}, r"optimizer = 'PResNet': give AdamW or Adam or SGD$"),
        ({"RTDETR": {"backbone": "RTDETR"}}, r"backbone = 'RTDETR': give PResNet or HGNetv2$"),
        ({"RTDETR": {"encoder": "RTDETR"}}, r"RTDETR.encoder = 'RTDETR': give HybridEncoder$"),
        (
            {"Compose": {"ops": [{"type": "Compose"}]}},
            r"^overrides: Compose.ops\[0\] = 'Compose': contains itself; name another",
        ),
        ({"lr_scheduler": {"type": "LambdaLR"}}, "LambdaLR: 'lr_lambda' is a Python function"),
        ({"RTDETRTransformer": {}}, "'RTDETRTransformer'; RT-DETR v1 is not supported"),
        ({"criterion": "SetCriterion"}, "'SetCriterion'; RT-DETR v1 is not supported"),
        ({"PResNet": {"num_stages": 5}}, r"PResNet.num_stages = 5: .* less than or equal to 4"),
        ({"PResNet": {"return_idx": [9]}}, r"PResNet.return_idx\[0\] = 9: .* equal to 3"),
        ({"HGNetv2": {"return_idx": [-1]}}, r"HGNetv2.return_idx\[0\] = -1: .* equal to 0"),
        ({"RTDETRTransformerv2": {"num_layers": 0}}, r"num_layers = 0: .* greater than or equal"),
    ],
)
def test_part_of_another_kind_is_rejected(tmp_path, digits, values, message):
    with pytest.raises(ConfigError, match=message):
        tiny_config(tmp_path, digits, **values)


@pytest.mark.parametrize("chosen", [[3, 1], [1, 1], []])
def test_stages_out_of_order_are_rejected(chosen):
    for name, options in (("PResNet", {"depth": 18}), ("HGNetv2", {"name": "L"})):
        description = {"type": name, "return_idx": chosen, **options}
        with pytest.raises(ConfigError, match=rf"{name}: return_idx = .*: give stages from 0 to 3"):
            Sections({}, {}).construct(description, "RTDETR.backbone")
