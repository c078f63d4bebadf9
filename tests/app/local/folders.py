"""Folders to import, and what was read from them, in a form that a test can compare."""

import json

from PIL import Image

from supervisely_integration.local.importers import read


def picture(path, size_wh=(100, 50), orientation=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    # Unlike each other, as the instance keeps equal contents once.
    image = Image.new("RGB", size_wh, (sum(map(ord, path.name)) % 256, 10, 200))
    image.save(path, **({"exif": exif} if orientation else {}))
    return path


def write(path, content, encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content)
    path.write_text(text, encoding=encoding)


def taken(folder, format=None):
    """Everything read: {dataset/name: [(class, shape, exterior)]}, and the source."""
    source = read(folder, format)
    found = {}
    for item in source.items:
        found[f"{item.dataset}/{item.name}"] = [
            (o["classTitle"], o["geometryType"], o["points"]["exterior"])
            for o in item.annotation["objects"]
        ]
    used = sum(map(len, found.values()))
    ledger = source.ledger
    assert len(found) + sum(s.images for s in ledger.skips) == ledger.given_images
    assert used + sum(s.objects for s in ledger.skips) == ledger.given_objects
    return found, source


def reasons(source):
    return {reason: [s.what for s in skips] for reason, skips in source.ledger.by_reason().items()}


def shapes(source):
    return {c["title"]: c["shape"] for c in source.meta["classes"]}
