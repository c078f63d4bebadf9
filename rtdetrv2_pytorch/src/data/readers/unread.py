"""Formats that are recognized but not read, with the way to convert them."""

import re
from collections.abc import Sequence

from .folders import Tree

_DATUMARO = "convert it to COCO, for example with Datumaro (`datum convert -if {} -f coco`)"
_EXPORT = "export it again as COCO or YOLO from the labeling program"

_IMPORT = "convert it to COCO, for example by an import into your labeling program"

# Name, extensions, expression for the first bytes of a file, remedy.
_FORMATS: Sequence[tuple[str, tuple[str, ...], bytes, str]] = (
    (
        "TFRecord (TensorFlow)",
        (".tfrecord", ".tfrecords", ".record"),
        b"",
        _DATUMARO.format("tf_detection_api"),
    ),
    ("VGG Image Annotator (VIA)", (".csv",), rb"region_shape_attributes", _IMPORT),
    ("Open Images CSV", (".csv",), rb"ImageID,.*XMin", _DATUMARO.format("open_images")),
    (
        "CSV with boxes",
        (".csv",),
        rb"(?i)xmin|x_min|bbox|[^,\n]+,\d+,\d+,\d+,\d+,",
        _IMPORT,
    ),
    ("CreateML", (".json",), rb'(?s)^\s*\[.*"(image|imagefilename)".*"coordinates"', _EXPORT),
    ("CVAT for images (XML)", (".xml",), rb"<annotations>", _EXPORT),
    ("Label Studio JSON", (".json",), rb'(?s)^\s*\[.*"(completions|annotations)"', _EXPORT),
    ("VGG Image Annotator (VIA)", (".json",), rb'"(shape_attributes|_via_settings)"', _IMPORT),
    ("VoTT", (".json",), rb'"(vott|regions)"', _EXPORT),
    ("Labelbox", (".json", ".ndjson"), rb'"(Labeled Data|data_row)"', _EXPORT),
    ("Datumaro", (".json",), rb'"categories":\s*\{.*"items"', _DATUMARO.format("datumaro")),
    ("Parquet", (".parquet",), b"", _IMPORT),
    (
        "KITTI",
        (".txt",),
        rb"^\S+ -?[\d.]+ -?\d+ -?[\d.]+( -?[\d.]+){11}\s",
        _DATUMARO.format("kitti"),
    ),
    (
        "YOLO without class names",
        (".txt",),
        rb"^\d+( -?[\d.]+(e-?\d+)?){4,}\s",
        "add data.yaml with 'names', or classes.txt with one class name per line",
    ),
)
_MAX_FILES = 20  # of an extension


def recognize(tree: Tree) -> str:
    """Return a message about the format of a folder; empty if it is unknown."""
    for name, suffixes, pattern, remedy in _FORMATS:
        # Shards are named images.tfrecord-00000-of-00010.
        shards = [name for name in tree.files if any(f"{s}-" in name.lower() for s in suffixes)]
        for file in [*tree.with_suffix(*suffixes), *shards][:_MAX_FILES]:
            if re.search(pattern, tree.starts_with(file)):
                return f"{name} ({file}) is not read; {remedy}"
    return ""
