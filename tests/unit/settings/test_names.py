"""Names that the app makes are accepted by the SDK and by Team Files."""

import pytest

from supervisely_integration.settings.names import experiment_name, unused_name, valid_part


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("site A/B", "site A-B"),
        ("a\\b//c", "a-b-c"),
        ("plain name", "plain name"),
        ("\u00fcber \u6f22\u5b57", "\u00fcber \u6f22\u5b57"),
        ("two\nlines\ttab\x00", "two lines tab"),
        ("  ", "-"),
        ("/", "-"),
        ("x" * 300, "x" * 120),
        ("\u6f22" * 100, "\u6f22" * 40),  # 3 bytes each
        ("\u6f22" * 39 + "ab\u6f22", "\u6f22" * 39 + "ab"),  # not cut within a character
        ("a\ud800b", "a b"),
    ],
)
def test_part_of_a_name(name, expected):
    assert valid_part(name) == expected


def test_experiment_names():
    assert experiment_name(7, "site A/B", "RT-DETRv2-S") == "7 site A-B RT-DETRv2-S"
    assert experiment_name(-1, "p", "my/own") == "debug p my-own"
    long = experiment_name(7, "x" * 400, "y" * 400)
    assert len(long.encode()) < 255
    assert long.endswith("y")  # the model remains when the project's name is cut


def test_names_of_further_experiments():
    first = "7 digits 3 RT-DETRv2-S"
    assert unused_name(first, {"other"}) == first
    assert unused_name(first, {first}) == f"{first} #2"
    assert unused_name(f"{first} #2", {first, f"{first} #2"}) == f"{first} #3"
    assert unused_name(first, {first, f"{first} #2"}) == f"{first} #3"
    assert unused_name("#3", {"#3"}) == "#3 #2"
    assert unused_name("cells #x", {"cells #x"}) == "cells #x #2"
