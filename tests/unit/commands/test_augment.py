"""The command `rtdetrv2 augment`: pictures of the presets."""

import numpy as np
import pytest
from PIL import Image

from rtdetrv2.commands import augment, train
from rtdetrv2_pytorch.src.data.augment.presets import PRESETS

SMALL = ["-u", "eval_spatial_size=[64,64]"]


def test_picture_has_a_row_per_preset(digits, tmp_path, capsys):
    path = tmp_path / "new" / "sheet.png"
    words = ["--data", str(digits), "-o", str(path), "--images", "3", "--side", "64", *SMALL]
    assert augment.main(words) == 0
    assert "sheet.png" in capsys.readouterr().out
    picture = np.asarray(Image.open(path))
    assert picture.shape == (len(PRESETS) * (22 + 64 + 4), 3 * 68 - 4, 3)
    rows = [picture[top + 22 : top + 86] for top in range(0, len(picture), 90)]
    assert all(row.std() > 10 for row in rows)
    assert all(not np.array_equal(rows[0], row) for row in rows[1:])  # the images as they are


def test_chosen_presets(digits, tmp_path):
    path = tmp_path / "sheet.jpg"
    words = ["--data", str(digits), "-o", str(path), "--images", "1", "--side", "64"]
    assert augment.main([*words, "--preset", "aerial", "--preset", "none", *SMALL]) == 0
    assert Image.open(path).size == (64, 180)


@pytest.mark.parametrize("command", [augment, train])
def test_unknown_preset_is_a_usage_error_with_the_list(command, digits, capsys):
    option = "--preset" if command is augment else "--augmentation"
    assert command.main(["--data", str(digits), option, "space"]) == 2
    shown = " ".join(capsys.readouterr().err.split())
    assert all(f"'{name}'" in shown for name in ("space", *PRESETS))


def test_unwritable_picture_is_an_error(digits, tmp_path, capsys):
    words = ["--data", str(digits), "-o", str(tmp_path / "sheet.unknown"), "--images", "1", *SMALL]
    assert augment.main(words) == 1
    shown = " ".join(capsys.readouterr().err.split())
    assert "choose another path, ending in .jpg or .png" in shown
