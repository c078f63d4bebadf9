"""Images to verify exports on: sizes, labels and fallbacks."""

import json
import logging

import numpy as np
import pytest
from PIL import Image

from rtdetrv2_pytorch.src.deploy.comparison_images import (
    generated_images,
    given_images,
    validation_images,
)
from rtdetrv2_pytorch.src.deploy.model_card import ModelCard
from rtdetrv2_pytorch.src.misc.errors import DatasetError


def card(class_names, pixel_range=None):
    return ModelCard(
        class_names=tuple(class_names), input_size_hw=(64, 64), pixel_range=pixel_range
    )


def make_split(folder, sizes_wh, categories=((7, "dog"), (3, "cat"))):
    """Write a COCO split: image n has gray level n and one box of the first category."""
    images, annotations = [], []
    for n, (width, height) in enumerate(sizes_wh):
        Image.fromarray(np.full((height, width, 3), n, np.uint8)).save(folder / f"{n}.png")
        images.append({"id": n + 1, "file_name": f"{n}.png", "width": width, "height": height})
        annotations.append(
            {"id": n + 1, "image_id": n + 1, "category_id": categories[0][0], "bbox": [1, 2, 3, 4]}
        )
    entries = [{"id": id_, "name": name} for id_, name in categories]
    content = {"images": images, "annotations": annotations, "categories": entries}
    path = folder / "instances_val.json"
    path.write_text(json.dumps(content))
    return path


def test_classes_are_matched_by_name(tmp_path):
    path = make_split(tmp_path, [(40, 30), (30, 40)])
    comparison = validation_images(path, tmp_path, card(["bird", "cat", "dog"]))
    assert comparison.annotations.labels.tolist() == [2, 2]
    assert comparison.annotations.categories.names == ("bird", "cat", "dog")
    assert comparison.sizes_wh == [(30, 40), (40, 30)]
    assert comparison.origin == "2 of 2 images of instances_val.json"
    assert [image[0, 0, 0] for image in comparison.images] == [0, 1]
    assert comparison.image_ids == (1, 2)


def test_all_sizes_are_represented(tmp_path):
    sizes = [(40, 30)] * 30 + [(20, 20)] * 2 + [(50, 30)]
    path = make_split(tmp_path, sizes)
    comparison = validation_images(path, tmp_path, card(["cat", "dog"]), limit=9)
    widths = [image.shape[1] for image in comparison.images]
    assert len(widths) == 9
    assert widths.count(20) == 2
    assert widths.count(50) == 1
    assert widths.count(40) == 6
    # Spread over the split.
    assert max(comparison.image_ids[:6]) > 20


def test_crops_are_added_if_all_images_have_one_size(tmp_path):
    path = make_split(tmp_path, [(40, 32)] * 5)
    comparison = validation_images(path, tmp_path, card(["cat", "dog"]))
    assert comparison.sizes_wh == [(20, 24), (40, 32)]
    assert len(comparison.images) == 7
    assert len(comparison.image_ids) == 5
    assert comparison.origin == "5 of 5 images of instances_val.json and 2 crops"


def test_more_sizes_than_the_limit(tmp_path):
    path = make_split(tmp_path, [(10 + n, 20) for n in range(8)])
    comparison = validation_images(path, tmp_path, card(["cat", "dog"]), limit=3)
    assert len(comparison.sizes_wh) == 3


def test_unreadable_images_are_skipped(tmp_path, caplog):
    path = make_split(tmp_path, [(40, 30), (30, 40), (30, 41)])
    (tmp_path / "1.png").write_bytes(b"damaged")
    with caplog.at_level(logging.WARNING):
        comparison = validation_images(path, tmp_path, card(["cat", "dog"]))
    assert comparison.image_ids == (1, 3)
    assert "1.png" in caplog.text
    for n in (0, 2):
        (tmp_path / f"{n}.png").write_bytes(b"damaged")
    with pytest.raises(DatasetError, match=r"no image of instances_val\.json is readable"):
        validation_images(path, tmp_path, card(["cat", "dog"]))


def test_objects_of_classes_that_the_model_lacks_are_skipped(tmp_path):
    path = make_split(tmp_path, [(40, 30)])
    comparison = validation_images(path, tmp_path, card(["cat", "bird"]))
    assert comparison.annotations.labels.tolist() == []
    assert comparison.annotations.categories.names == ("cat", "bird")


def test_given_images(tmp_path):
    make_split(tmp_path, [(40, 30), (30, 40)])
    comparison = given_images([tmp_path / "1.png", tmp_path / "0.png"], card(["dog"]))
    assert [image.shape for image in comparison.images] == [(40, 30, 3), (30, 40, 3)]
    assert comparison.annotations is None
    assert comparison.origin == "2 given images"


def test_generated_images_are_deterministic():
    comparison = generated_images()
    assert len(comparison.sizes_wh) == len(comparison.images) == 6
    again = generated_images()
    assert all((a == b).all() for a, b in zip(comparison.images, again.images, strict=True))
    assert all(image.std() > 20 for image in comparison.images)
    assert "generated" in comparison.origin
