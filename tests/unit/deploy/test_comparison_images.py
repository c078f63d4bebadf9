"""Images to compare on: of several sizes, with ground truth in the labels of the model."""

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
from rtdetrv2_pytorch.src.misc.errors import DatasetError


def make_split(folder, sizes_wh, categories=((7, "dog"), (3, "cat"))):
    """A COCO split whose image n is all gray n, with one box of the first category each."""
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


def test_labels_go_by_the_names_of_the_model(tmp_path):
    path = make_split(tmp_path, [(40, 30), (30, 40)])
    samples = validation_images(path, tmp_path, ["bird", "cat", "dog"])
    assert samples.annotations.labels.tolist() == [2, 2]
    assert samples.annotations.categories.names == ("bird", "cat", "dog")
    assert samples.sizes_wh == [(30, 40), (40, 30)]
    assert samples.origin == "2 of 2 images of instances_val.json"
    assert [image[0, 0, 0] for image in samples.images] == [0, 1]
    assert samples.image_ids == (1, 2)


def test_every_size_is_taken_before_more_of_one(tmp_path):
    sizes = [(40, 30)] * 30 + [(20, 20)] * 2 + [(50, 30)]
    path = make_split(tmp_path, sizes)
    samples = validation_images(path, tmp_path, ["cat", "dog"], limit=9)
    widths = [image.shape[1] for image in samples.images]
    assert len(widths) == 9
    assert widths.count(20) == 2
    assert widths.count(50) == 1
    assert widths.count(40) == 6
    # Spread over the split instead of its beginning.
    assert max(samples.image_ids[:6]) > 20


def test_of_one_size_crops_are_added_without_ground_truth(tmp_path):
    path = make_split(tmp_path, [(40, 32)] * 5)
    samples = validation_images(path, tmp_path, ["cat", "dog"])
    assert samples.sizes_wh == [(20, 24), (40, 32)]
    assert len(samples.images) == 7
    assert len(samples.image_ids) == 5
    assert samples.origin == "5 of 5 images of instances_val.json and 2 crops"


def test_more_sizes_than_images_wanted(tmp_path):
    path = make_split(tmp_path, [(10 + n, 20) for n in range(8)])
    samples = validation_images(path, tmp_path, ["cat", "dog"], limit=3)
    assert len(samples.sizes_wh) == 3


def test_an_image_that_cannot_be_read_is_left_out(tmp_path, caplog):
    path = make_split(tmp_path, [(40, 30), (30, 40), (30, 41)])
    (tmp_path / "1.png").write_bytes(b"no image")
    with caplog.at_level(logging.WARNING):
        samples = validation_images(path, tmp_path, ["cat", "dog"])
    assert samples.image_ids == (1, 3)
    assert "1.png" in caplog.text
    for n in (0, 2):
        (tmp_path / f"{n}.png").write_bytes(b"no image")
    with pytest.raises(DatasetError, match=r"no image of instances_val\.json can be read"):
        validation_images(path, tmp_path, ["cat", "dog"])


def test_classes_that_the_model_does_not_know(tmp_path):
    path = make_split(tmp_path, [(40, 30)])
    with pytest.raises(DatasetError, match="'dog'"):
        validation_images(path, tmp_path, ["cat", "bird"])


def test_given_images(tmp_path):
    make_split(tmp_path, [(40, 30), (30, 40)])
    samples = given_images([tmp_path / "1.png", tmp_path / "0.png"])
    assert [image.shape for image in samples.images] == [(40, 30, 3), (30, 40, 3)]
    assert samples.annotations is None
    assert samples.origin == "2 given images"


def test_generated_images_are_the_same_everywhere():
    samples = generated_images()
    assert len(samples.sizes_wh) == len(samples.images) == 6
    again = generated_images()
    assert all((a == b).all() for a, b in zip(samples.images, again.images, strict=True))
    assert all(image.std() > 20 for image in samples.images)
    assert "generated" in samples.origin
