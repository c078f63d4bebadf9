"""A trained detector and its exports, made once for all tests of exports."""

from functools import cache
from types import SimpleNamespace

import pytest

from rtdetrv2_pytorch.src.data.splits import find_splits
from rtdetrv2_pytorch.src.deploy.comparison_images import validation_images
from rtdetrv2_pytorch.src.deploy.export import Source, export_onnx
from tests.integration.overfitted_checkpoint import overfitted_checkpoint


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """RT-DETRv2-S with a small head, overfitted to four images."""
    checkpoint, data = overfitted_checkpoint(tmp_path_factory)
    split = find_splits(data, data.parent / "converted").val

    def find_images(card):
        return validation_images(split.ann_file, split.img_folder, card)

    source = Source(checkpoint=checkpoint, find_images=find_images)
    return SimpleNamespace(source=source, checkpoint=checkpoint, data=data)


@pytest.fixture(scope="session")
def exported(trained, tmp_path_factory):
    """exported(): a float32 export and its report, made once."""

    @cache
    def make():
        output = tmp_path_factory.mktemp("exported") / "best.onnx"
        return output, export_onnx(trained.source, output)

    return make
