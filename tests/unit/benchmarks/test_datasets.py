"""What the tables mark as the default is what a training chooses."""

import json
from dataclasses import replace

import pytest

from benchmarks.accuracy.datasets import DATASETS
from benchmarks.accuracy.page import generate
from benchmarks.accuracy.recipes import find_recipe
from rtdetrv2.training.auto_config import scratch_augmentation
from tests.accuracy_results import result


@pytest.mark.parametrize("name", DATASETS)
def test_default_of_a_data_set(name, tmp_path):
    data = DATASETS[name]
    if data.is_generated:
        data = replace(data, folder=tmp_path)
    elif reason := data.missing():
        pytest.skip(reason)
    content = json.loads(data.splits().train.ann_file.read_text())
    chosen = scratch_augmentation(
        epochs=data.epochs,
        num_boxes=len(content["annotations"]),
        num_classes=len({each["category_id"] for each in content["annotations"]}),
        given={},
    )
    default = find_recipe(data.default).update
    assert chosen.get("balanced_paste", 0) == default["balanced_paste"]


def test_page_marks_the_default():
    runs = [result("digits", name) for name in ("no-paste", "paste-balanced")]
    runs.append(result("digits", "transformers", kind="peer"))
    steps, minutes = generate({"": runs}).split("Within ")
    for table in (steps, minutes):
        assert "| `no-paste` | 1 |" in table
        assert "| `paste-balanced` (default) | 1 |" in table
    assert "| `transformers` (other trainer) | 1 |" in minutes
