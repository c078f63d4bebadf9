"""Formatting of text for users."""

import pytest

from rtdetrv2_pytorch.src.misc.text import (
    counted,
    first_line,
    parse_json,
    printable,
    whole_characters,
)


@pytest.mark.parametrize(
    ("text", "problem"), [("[" * 100_000, "^nested too deeply$"), ("{", "Expecting property name")]
)
def test_invalid_json_is_a_value_error(text, problem):
    assert parse_json(b'{"a": [1]}') == {"a": [1]}
    with pytest.raises(ValueError, match=problem):
        parse_json(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("zwei Äpfel, 二.png", "zwei Äpfel, 二.png"),
        ("a\x1b[31mred\nb", "a\\x1b[31mred\\nb"),
        ("gnp\u202egpj", "gnp\\u202egpj"),  # turns the reading direction
        ("\udcff.png", "\\udcff.png"),  # not UTF-8 on disk
        ("<b>&", "<b>&"),
    ],
)
def test_printable_escapes_invisible_characters(text, expected):
    assert printable(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Äpfel, 二, \U0001f600", "Äpfel, 二, \U0001f600"),
        ("caf\udce9.png", "caf\ufffd.png"),
        ("\ud83d and \ude00", "\ufffd and \ufffd"),
        ("\ud83d\ude00", "\U0001f600"),  # both halves
        ("", ""),
    ],
)
def test_lone_surrogates_are_replaced(text, expected):
    assert whole_characters(text) == expected


def test_counted_uses_the_plural():
    assert [counted(n, "epoch") for n in (0, 1, 2)] == ["0 epochs", "1 epoch", "2 epochs"]
    assert [counted(n, "class") for n in (1, 2)] == ["1 class", "2 classes"]


def test_first_line_of_error():
    assert first_line(ValueError("\n")) == "ValueError"
    assert first_line(RuntimeError(" no good \nand more")) == "no good "
