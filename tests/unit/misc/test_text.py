"""Names of files and classes, as people are shown them."""

import pytest

from rtdetrv2_pytorch.src.misc.text import counted, first_line, printable, whole_characters


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
def test_what_cannot_be_seen_is_written_out(text, expected):
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
def test_halves_of_characters_are_replaced(text, expected):
    assert whole_characters(text) == expected


def test_things_are_counted_as_people_do():
    assert [counted(n, "epoch") for n in (0, 1, 2)] == ["0 epochs", "1 epoch", "2 epochs"]
    assert [counted(n, "class") for n in (1, 2)] == ["1 class", "2 classes"]


def test_an_error_without_a_text_is_told_by_its_kind():
    assert first_line(ValueError("\n")) == "ValueError"
    assert first_line(RuntimeError(" no good \nand more")) == "no good "
