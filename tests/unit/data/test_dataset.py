"""Index -> augmented image and target, deterministic in all processes."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from rtdetrv2_pytorch.src.data.augment.compose import Compose
from rtdetrv2_pytorch.src.data.augment.degradation import RandomJPEG, RandomNoise
from rtdetrv2_pytorch.src.data.augment.geometric import (
    RandomAffine,
    RandomQuarterTurn,
    RandomZoomOut,
    Resize,
)
from rtdetrv2_pytorch.src.data.augment.mixing import CopyPaste, MixUp
from rtdetrv2_pytorch.src.data.augment.mosaic import Mosaic
from rtdetrv2_pytorch.src.data.coco_dataset import CocoDetection
from rtdetrv2_pytorch.src.data.dataset import files_exist
from rtdetrv2_pytorch.src.data.loading.loader import DataLoader
from rtdetrv2_pytorch.src.misc.errors import DatasetError


def same(one, other):
    (image, target), (other_image, other_target) = one, other
    return torch.equal(image, other_image) and all(
        torch.equal(target[k], other_target[k]) for k in target
    )


@pytest.fixture
def augmented(digits, training_pipeline):
    """Digits with the published augmentation at a small size."""

    def make(**other) -> CocoDetection:
        training_pipeline.ops[5] = Resize(size=[64, 64])
        return CocoDetection(
            img_folder=str(digits / "train"),
            ann_file=str(digits / "annotations/instances_train.json"),
            transforms=training_pipeline,
            **other,
        )

    return make


def test_target_fields(write_coco):
    annotations = [{"image_id": 22, "bbox": [4, 3, 10, 8], "area": 70}]
    images = [{"id": 5, "file_name": "a.png"}, {"id": 22, "file_name": "b.png"}]
    transforms = Compose(ops=[Resize(size=[15, 10])])
    image, target = CocoDetection(**write_coco(annotations, images) | {"transforms": transforms})[1]
    assert (image.dtype, tuple(image.shape)) == (torch.uint8, (3, 15, 10))
    expected = {
        "boxes": torch.tensor([[1.0, 1.5, 3.5, 5.5]]),
        "labels": torch.tensor([1]),
        "image_id": torch.tensor([22]),
        "area": torch.tensor([70.0]),
        "iscrowd": torch.tensor([0]),
        "crowd_boxes": torch.empty(0, 4),
        "crowd_labels": torch.empty(0, dtype=torch.int64),
        "orig_size": torch.tensor([40, 30]),  # width, height
        "idx": torch.tensor([1]),
    }
    assert target.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(target[key], value)


def test_box_outside_the_image_is_excluded_from_targets(write_coco):
    data = CocoDetection(**write_coco([{"bbox": [40, 3, 10, 8]}, {"bbox": [-9, 0, 9, 8]}, {}]))
    assert data[0][1]["boxes"].tolist() == [[4, 3, 14, 11]]


def test_works_without_shared_memory(augmented, monkeypatch):
    def refuse(tensor):
        raise RuntimeError("unable to open shared memory object: Read-only file system (30)")

    expected = augmented()
    monkeypatch.setattr(torch.Tensor, "share_memory_", refuse)
    data = augmented()
    for one in (expected, data):
        one.set_epoch(4)
    assert data.epoch == 4
    assert same(data[2], expected[2])


def test_item_depends_only_on_seed_epoch_and_index(augmented):
    data = augmented(seed=3)
    first = [data[i] for i in range(6)]
    assert all(same(data[i], first[i]) for i in (5, 0, 3, 3))
    data.set_epoch(1)
    assert data.epoch == 1
    assert sum(same(data[i], first[i]) for i in range(6)) == 0
    data.set_epoch(0)
    again = augmented(seed=3)
    assert all(same(again[i], first[i]) for i in range(6))
    other_seed = augmented(seed=4)
    assert sum(same(other_seed[i], first[i]) for i in range(6)) == 0


def test_operations_stop_at_their_epoch(write_coco):
    policy = {"name": "stop_epoch", "epoch": 3, "ops": ["RandomZoomOut"]}
    transforms = Compose(ops=[RandomZoomOut(p=1, side_range=(2, 2))], policy=policy)
    data = CocoDetection(**write_coco() | {"transforms": transforms})
    for epoch, size_hw in ((0, (60, 80)), (2, (60, 80)), (3, (30, 40)), (9, (30, 40))):
        data.set_epoch(epoch)
        assert data[0][0].shape[1:] == size_hw


def test_global_generators_have_no_effect(augmented):
    data = augmented()
    torch.manual_seed(1)
    np.random.seed(1)
    one = data[2]
    torch.manual_seed(2)
    np.random.seed(2)
    assert same(one, data[2])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_workers_sample_the_same_as_the_main_process(augmented, num_workers):
    data = augmented(seed=3)
    data.set_epoch(4)
    expected = [data[i] for i in range(6)]
    loader = DataLoader(dataset=data, batch_size=3, num_workers=num_workers)
    images = [image for batch, _ in loader for image in batch]
    targets = [target for _, batch in loader for target in batch]
    assert all(same(i, e) for i, e in zip(zip(images, targets, strict=True), expected, strict=True))


def spoil(arguments, *names):
    for name in names:
        Path(arguments["img_folder"], name).write_bytes(b"not a picture")
    return arguments


@pytest.fixture
def four_images(write_coco):
    """Four images, b and c damaged; each has a box at x = 10 * id."""
    images = [{"id": i, "file_name": f"{name}.png"} for i, name in enumerate("abcd")]
    boxes = [{"image_id": i, "bbox": [10 * i, 3, 5, 8]} for i in range(4)]
    return spoil(write_coco(boxes, images), "b.png", "c.png")


def test_unreadable_images_are_skipped_and_reported_once(four_images, caplog):
    data = CocoDetection(**four_images)
    assert data.new_unreadable() == []
    items = [data[i] for i in range(4)]
    assert [item is None for item in items] == [False, True, True, False]
    assert data.new_unreadable() == ["b.png", "c.png"]
    assert data.new_unreadable() == []
    assert data[1] is None
    assert data.new_unreadable() == []
    warnings = [m for m in caplog.messages if m.endswith("the image is not used")]
    assert len(warnings) == 2
    assert "b.png: cannot be read as an image" in warnings[0]


def test_unreadable_images_are_replaced_by_the_next(four_images):
    data = CocoDetection(**four_images, unreadable="replace")
    assert [int(data[i][1]["image_id"]) for i in range(4)] == [0, 3, 3, 3]
    assert same(data[1], data[3])
    assert data.new_unreadable() == ["b.png", "c.png"]


def test_search_for_a_replacement_wraps_around(four_images):
    data = CocoDetection(**spoil(four_images, "d.png"), unreadable="replace")
    assert [int(data[i][1]["image_id"]) for i in range(4)] == [0, 0, 0, 0]


def test_no_readable_image_raises(four_images):
    data = CocoDetection(**spoil(four_images, "a.png", "d.png"), unreadable="replace")
    with pytest.raises(DatasetError, match=r"images: none of 4 images can be read"):
        data[0]


def test_main_process_records_images_unreadable_in_workers(four_images):
    data = CocoDetection(**four_images)
    loader = DataLoader(dataset=data, batch_size=2, num_workers=2)
    ids = [int(target["image_id"]) for _, targets in loader for target in targets]
    assert ids == [0, 3]
    assert data.new_unreadable() == ["b.png", "c.png"]


def test_damaged_image_of_a_mosaic_is_reported(write_coco):
    arguments = spoil(write_coco(), "b.png")
    mosaic = Compose(ops=[Mosaic(size=32)])
    data = CocoDetection(**arguments | {"transforms": mosaic})
    for epoch in range(8):
        data.set_epoch(epoch)
        data[0]
    assert data.new_unreadable() == ["b.png"]


@pytest.mark.parametrize("workers", [1, 2])
def test_mixed_and_degraded_items_do_not_depend_on_workers(four_images, workers):
    """Random numbers of all operations come from (seed, epoch, index)."""
    ops = [
        CopyPaste(p=0.9),
        CopyPaste(p=0.9, balanced=True),
        Mosaic(size=32, p=0.5),
        RandomAffine(p=0.9),
        RandomQuarterTurn(),
        Resize(size=(32, 48)),
        MixUp(p=0.9),
        RandomNoise(p=0.9),
        RandomJPEG(p=0.9),
    ]
    arguments = four_images | {"transforms": Compose(ops=ops), "unreadable": "replace", "seed": 3}
    data = CocoDetection(**arguments)
    data.set_epoch(1)
    expected = [data[i] for i in range(4)]
    loader = DataLoader(
        dataset=CocoDetection(**arguments), batch_size=2, num_workers=workers, seed=3
    )
    loader.set_epoch(1)
    images, targets = zip(*loader, strict=True)
    found = zip(torch.cat(images), [t for batch in targets for t in batch], strict=True)
    assert all(same(item, other) for item, other in zip(found, expected, strict=True))
    data.set_epoch(2)
    assert not same(data[0], expected[0])


def test_iteration_ends(write_coco):
    data = CocoDetection(**write_coco())
    assert len(list(islice(data, 5))) == len(data) == 2
    with pytest.raises(IndexError):
        data[2]


def test_files_exist(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("a.png", "sub/b.png"):
        (tmp_path / name).touch()
    names = ["a.png", "b.png", "sub/b.png", "sub/a.png", "none/a.png", "./a.png", "A.png"]
    assert files_exist(names, tmp_path) == [True, False, True, False, False, True, False]
    assert files_exist([str(tmp_path / "a.png")], Path("/nowhere")) == [True]
