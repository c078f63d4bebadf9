"""docs/python.md is up to date."""

import rtdetrv2
from rtdetrv2.reference.python_page import TARGET, python_page


def test_page_is_up_to_date():
    assert TARGET.read_text() == python_page(), "run python -m rtdetrv2.reference"


def test_page_documents_classes_and_arguments():
    page = python_page()
    for name in rtdetrv2.__all__:
        assert f"\n## {name}\n" in page
    assert "\n### RTDETR.predict\n" in page
    assert "`predict(source, *, score=0.5, nms_iou=None, classes=None, stream=False)`" in page
    assert "- `boxes`: [N, 4] float32 xyxy in pixels of the image" in page
    assert "\n- `DatasetError`: if a file is missing or cannot be read or downloaded.\n" in page
