"""Folders to import, and the imported data in a comparable form."""

import json

from PIL import Image

from rtdetrv2_pytorch.src.data.findings import grouped
from supervisely_integration.local.importers.items import read_items


def picture(path, size_wh=(100, 50), orientation=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    # All different, because the instance stores equal contents once.
    image = Image.new("RGB", size_wh, (sum(map(ord, path.name)) % 256, 10, 200))
    image.save(path, **({"exif": exif} if orientation else {}))
    return path


def write(path, content, encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content)
    path.write_text(text, encoding=encoding)


def taken(folder, format=None):
    """Read all: {dataset/name: [(class, shape, exterior)]}, and the source."""
    source = read_items(folder, format)
    found = {}
    for item in source.items:
        found[f"{item.dataset}/{item.name}"] = [
            (o["classTitle"], o["geometryType"], o["points"]["exterior"])
            for o in item.annotation["objects"]
        ]
    used = sum(map(len, found.values()))
    findings = source.findings
    assert len(found) + findings.lost_images == findings.given_images
    assert used + findings.lost_objects == findings.given_objects
    return found, source


def messages(source):
    """Findings as text, by the name of their kind."""
    return {group.kind.name: list(map(str, group.findings)) for group in grouped(source.findings)}


def shapes(source):
    return {c["title"]: c["shape"] for c in source.meta["classes"]}
