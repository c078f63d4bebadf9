"""Names of files and classes, as people are shown them."""

import pytest

from rtdetrv2_pytorch.src.misc.text import counted, first_line, printable


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


def test_things_are_counted_as_people_do():
    assert [counted(n, "epoch") for n in (0, 1, 2)] == ["0 epochs", "1 epoch", "2 epochs"]


def test_an_error_without_a_text_is_told_by_its_kind():
    assert first_line(ValueError("\n")) == "ValueError"
    assert first_line(RuntimeError(" no good \nand more")) == "no good "
