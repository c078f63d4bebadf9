"""The pixel range of a data set: choice, findings and cache."""

import numpy as np
import pytest
from PIL import Image

from rtdetrv2_pytorch.src.data.conversion import Split
from rtdetrv2_pytorch.src.doctor.data_page import write_page
from rtdetrv2_pytorch.src.doctor.deep_values import DeepValues, choose_range
from rtdetrv2_pytorch.src.doctor.examination import Options, examine
from tests.unit.deploy.test_comparison_images import make_split


def ramp(low, high, dtype="u2"):
    return np.linspace(low, high, 4000).reshape(40, 100).astype(dtype)


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        ([], None),
        ([ramp(0, 60000)], None),
        ([ramp(0, 60000), ramp(0, 0)], None),
        ([ramp(0, 1, "f4")], None),
        ([ramp(0, 255), ramp(0, 30)], (0, 255)),
        ([ramp(0, 4000)], (0, 4095)),
        ([ramp(0, 255, "f4")], (0, 255)),
        ([ramp(0, 0)], None),
    ],
)
def test_range_is_the_smallest_bit_depth_that_fits(images, expected):
    assert choose_range([DeepValues.of(image) for image in images]) == expected


def test_percentile_without_a_fitting_bit_depth():
    low, high = choose_range([DeepValues.of(ramp(-1000, 3000, "i4"))])
    assert (low, high) == pytest.approx((-996, 2996), abs=1)
    hot = ramp(1000, 2000)
    hot[0, 0] = 65535
    low, high = choose_range([DeepValues.of(hot)])
    assert (low, high) == pytest.approx((1000, 2000), abs=3)


def split_of(folder, name, values):
    path = folder / name
    path.mkdir()
    ann_file = make_split(path, [(100, 40)] * len(values))
    for n, image in enumerate(values):
        Image.fromarray(image).save(path / f"{n}.png")
    return Split(name=name, img_folder=path, ann_file=ann_file)


def test_doctor_chooses_shows_and_caches_the_range(tmp_path):
    train = split_of(tmp_path, "train", [ramp(0, 4000), ramp(0, 3500)])
    val = split_of(tmp_path, "val", [ramp(0, 300)])
    for _ in range(2):  # the second time from the cache
        report = examine("data", train, val, Options(cache=tmp_path / "cache"))
        assert report.pixel_range == (0, 4095)
        (chosen,) = (f for f in report.findings if f.kind.name == "pixel_range")
        assert chosen.where == "0 to 4095"
        dark = [str(f) for f in report.findings if f.kind.name == "few_levels"]
        assert len(dark) == 1
        assert "20 gray levels left" in dark[0]
    page = write_page(report, tmp_path).read_text()
    assert "scaling of images with more than 8 bits" in page
    assert page.count("data:image/jpeg") >= 2
    given = examine("data", train, val, Options(pixel_range=(0.0, 65535.0)))
    assert given.pixel_range == (0, 65535)
    assert sum(f.kind.name == "few_levels" for f in given.findings) == 3
