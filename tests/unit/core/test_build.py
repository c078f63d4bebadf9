"""Sections against signatures."""

from typing import Literal

import pytest

from rtdetrv2_pytorch.src.core import ConfigError, build
from rtdetrv2_pytorch.src.core.build import Sections, convert, suggest
from rtdetrv2_pytorch.src.data.augment import Compose, Policy, RandomZoomOut, Resize


def test_numbers_that_yaml_reads_as_strings_become_numbers():
    assert convert("1e-4", float, "lr") == 1e-4
    assert convert([640, 320], tuple[int, int], "size") == (640, 320)
    assert convert("path.pth", bool | str, "pretrained") == "path.pth"
    assert convert(True, bool | str, "pretrained") is True


@pytest.mark.parametrize(
    ("value", "hint", "message"),
    [
        ("256x", int, r"D = '256x': Input should be a valid integer, unable to parse string"),
        (2.5, int, r"D = 2.5: Input should be a valid integer"),
        (True, int, r"D = True: a number is needed here"),
        ("v1", Literal["v2"], r"D = 'v1': Input should be 'v2'"),
        ([1, "x"], list[int], r"D = 'x': Input should be a valid integer"),
        ({"name": "never"}, Policy, r"D.name = 'never': Input should be 'default' or 'stop_epoch'"),
    ],
)
def test_other_types_are_refused_with_place_value_and_reason(value, hint, message):
    with pytest.raises(ConfigError, match=message):
        convert(value, hint, "D")


def test_a_close_word_is_suggested_and_otherwise_all_are_listed():
    assert suggest("freez_norm", ["freeze_norm", "depth"]) == "; did you mean 'freeze_norm'?"
    assert suggest("zzz", ["b", "a"]) == "; known are a, b"


def test_a_section_is_looked_up_by_name_and_inline_keys_come_on_top():
    sections = Sections({"RandomZoomOut": {"fill": 3, "p": 0.25}}, {})
    built = sections.construct({"type": "RandomZoomOut", "p": 1.0}, "here")
    assert isinstance(built, RandomZoomOut)
    assert (built.fill, built.p) == (3, 1.0)


def test_lists_of_components_are_built_in_order():
    sections = Sections({}, {})
    ops = [{"type": "Resize", "size": [64, 32]}, {"type": "RandomZoomOut"}]
    compose = sections.construct({"type": "Compose", "ops": ops}, "transforms")
    assert isinstance(compose, Compose)
    assert [type(op) for op in compose.ops] == [Resize, RandomZoomOut]
    assert compose.ops[0].size == [64, 32]


def test_the_misspelt_historical_name_is_known():
    sections = Sections({}, {})
    assert sections.construct("BatchImageCollateFuncion", "collate_fn").scales is None


@pytest.mark.parametrize("section", ["640", [640], 640])
def test_a_section_that_is_no_mapping_is_refused(section):
    with pytest.raises(ConfigError, match="Resize = .*640.*: give its keys with their values"):
        Sections({"Resize": section}, {}).check("Resize", "op")


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ("Resise", r"op: unknown component 'Resise'; did you mean 'Resize'\?"),
        ({"size": 3}, "op = .*: give a component's name, or {type: name}"),
        ({"type": "Resize", "sise": 3}, r"Resize: unknown key 'sise'; did you mean 'size'\?"),
        ({"type": "Resize"}, "Resize: 'size' is missing; it has no default"),
        ({"type": "Resize", "size": "big"}, "Resize.size.* = 'big'"),
        ({"type": "RandomZoomOut", "side_range": [3, 2]}, "RandomZoomOut: side_range"),
    ],
)
def test_what_is_wrong_is_named(description, message):
    with pytest.raises(ConfigError, match=message):
        Sections({}, {}).construct(description, "op")


def test_checking_builds_nothing(monkeypatch):
    def explode(**kwargs):
        raise AssertionError("built")

    monkeypatch.setitem(build.COMPONENTS, "Resize", explode)
    Sections({}, {}).check({"type": "Compose", "ops": []}, "transforms")


def test_a_shared_value_beats_the_sections_own_and_the_conflict_is_listed():
    sections = Sections(
        {"RTDETRPostProcessor": {"num_classes": 5, "num_top_queries": 7}}, {"num_classes": 3}
    )
    built = sections.construct("RTDETRPostProcessor", "postprocessor")
    assert (built.num_classes, built.num_top_queries) == (3, 7)
    assert sections.conflicts() == [
        "RTDETRPostProcessor.num_classes = 5 is overruled by top-level num_classes = 3"
    ]


def test_equal_shared_values_are_no_conflict():
    sections = Sections(
        {"HybridEncoder": {"eval_spatial_size": [64, 32]}}, {"eval_spatial_size": (64, 32)}
    )
    assert sections.conflicts() == []


def test_an_unknown_key_of_a_typed_dict_is_named_with_a_suggestion():
    with pytest.raises(ConfigError, match=r"D: unknown key 'epcoh'; did you mean 'epoch'\?"):
        convert({"name": "stop_epoch", "epcoh": 3}, Policy | None, "D")


def test_rules_of_the_optimizer_are_brought_to_their_types():
    rules = Sections({}, {}).parameter_rules({"type": "AdamW"}, [{"params": "x", "lr": "1e-5"}])
    assert rules == [{"params": "x", "lr": 1e-5}]


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ("x", r"optimizer.params = 'x': give a list"),
        ([{"lr": 1}], r"optimizer.params\[0\] = .*: give a mapping with 'params'"),
        ([{"params": "x", "lrr": 1}], r"optimizer.params\[0\]: unknown key 'lrr'; did you mean"),
        ([{"params": "x", "lr": "y"}], r"optimizer.params\[0\].lr = 'y': Input should be a valid"),
        ([{"params": "(x"}], r"optimizer.params\[0\].params = '\(x': not a regular expression"),
    ],
)
def test_mistakes_in_rules_of_the_optimizer_are_refused(rules, message):
    with pytest.raises(ConfigError, match=message):
        Sections({}, {}).parameter_rules("AdamW", rules)
