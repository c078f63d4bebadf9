"""Damaged data sets: cases for each kind of finding."""

import io
import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 64, 48
NFC, NFD = "\u00e4.png", "a\u0308.png"  # one name in two Unicode forms


def pixels(seed: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """Return a unique image of large soft shapes: [height, width, 3] uint8."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.array(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def encoded(kind: str, seed: int = 0, image: Image.Image | None = None, **options: Any) -> bytes:
    """Return the content of an image file."""
    buffer = io.BytesIO()
    (image or Image.fromarray(pixels(seed))).save(buffer, kind, **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """Return a PNG that declares many pixels and contains none."""

    def chunk(body: bytes) -> bytes:
        return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))

    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(header) + chunk(b"IDAT") + chunk(b"IEND")


class CocoFolder:
    """A valid data set, until a case modifies it.

    Three training and two validation images, 64 wide and 48 high, with a box each: image 1 holds
    a cat, image 2 a dog, and so on.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.content: dict[str, dict[str, Any]] = {}
        self._seed = 0
        self._last_id = {"train": 0, "val": 0}
        for split, number in (("train", 3), ("val", 2)):
            (root / split).mkdir(parents=True)
            categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
            self.content[split] = {"images": [], "annotations": [], "categories": categories}
            for i in range(number):
                self.add(split, f"{split}{i}.png", category=1 + i % 2)

    def add(
        self,
        split: str,
        name: str,
        content: bytes | None = None,
        *,
        category: int = 1,
        bbox: Any = (8, 8, 32, 32),
        **image: Any,
    ) -> dict[str, Any]:
        """Add an image with a box; return its entry."""
        self._seed += 1
        path = self.root / split / name
        if content is None:
            content = encoded("PNG", self._seed)
        if content != b"nothing":
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        images = self.content[split]["images"]
        self._last_id[split] += 1
        images.append(
            {
                "id": self._last_id[split],
                "file_name": name,
                **({"width": WIDTH, "height": HEIGHT} | image),
            }
        )
        self.box(split, bbox, category=category)
        return images[-1]

    def box(self, split: str, bbox: Any, **changes: Any) -> dict[str, Any]:
        """Add a box to the last image; return its entry."""
        entries = self.content[split]["annotations"]
        entries.append(
            {
                "id": len(entries) + 1,
                "image_id": self._last_id[split],
                "category_id": changes.pop("category", 1),
                "bbox": list(bbox) if isinstance(bbox, tuple) else bbox,
                "iscrowd": 0,
                **changes,
            }
        )
        return entries[-1]

    def add_class(self, split: str, name: str) -> int:
        """Add a class; return its id."""
        categories = self.content[split]["categories"]
        categories.append({"id": len(categories) + 1, "name": name})
        return len(categories)

    def ann_file(self, split: str) -> Path:
        """Return the annotation file of a split."""
        return self.root / f"instances_{split}.json"

    def write(self) -> None:
        """Write the annotation files that the case has not written itself."""
        for split, content in self.content.items():
            if not self.ann_file(split).exists():
                self.ann_file(split).write_text(json.dumps(content), encoding="utf-8")


Case = Callable[[CocoFolder], object]


def _missing(data: CocoFolder) -> None:
    data.add("train", "gone.png", b"nothing")


def _other_form(data: CocoFolder) -> None:
    (data.root / "train" / NFD).write_bytes(encoded("PNG", 78))
    data.add("train", NFC, b"nothing")


def _dead_link(data: CocoFolder) -> None:
    data.add("train", "link.png", b"nothing")
    (data.root / "train" / "link.png").symlink_to("nowhere.png")


def _folder(data: CocoFolder) -> None:
    data.add("train", "folder.png", b"nothing")
    (data.root / "train" / "folder.png").mkdir()


def _pipe(data: CocoFolder) -> None:
    data.add("train", "pipe.png", b"nothing")
    os.mkfifo(data.root / "train" / "pipe.png")


def _file(name: str, content: bytes, **image: Any) -> Case:
    return lambda data: data.add("train", name, content, **image)


def _box(bbox: Any, **changes: Any) -> Case:
    return lambda data: data.box("train", bbox, **changes)


def _rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded("JPEG", 70, exif=exif, quality=95)


def _tiff(mode: str) -> bytes:
    gray = pixels(71)[..., 0]
    if mode == "F":
        return encoded("TIFF", image=Image.fromarray(gray.astype(np.float32) / 255))
    return encoded("TIFF", image=Image.fromarray(gray.astype(np.uint16) * 257))


def _dark() -> bytes:
    gray = np.arange(WIDTH * HEIGHT).reshape(HEIGHT, WIDTH) % 10
    return encoded("PNG", image=Image.fromarray(gray.astype(np.uint16)))


def _dark_colors() -> bytes:
    """Encode black with 16 bits per color, which PIL cannot write."""
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 16, 2, 0, 0, 0)
    rows = zlib.compress(bytes(HEIGHT * (1 + 6 * WIDTH)))
    chunks = ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )


def _several(kind: str) -> bytes:
    frames = [Image.fromarray(pixels(seed)) for seed in (72, 73)]
    return encoded(kind, image=frames[0], save_all=True, append_images=frames[1:])


def _link_outside(data: CocoFolder) -> None:
    data.add("train", "away.png", b"nothing")
    target = data.root.parent / f"{data.root.name}_elsewhere.png"
    target.write_bytes(encoded("PNG", 74))
    (data.root / "train" / "away.png").symlink_to(target)


def _text_file(content: Callable[[str], bytes]) -> Case:
    """Write the training annotations with another encoding or content."""

    def make(data: CocoFolder) -> None:
        data.content["train"]["categories"][0]["name"] = "k\u00e4tzchen"
        data.content["val"]["categories"][0]["name"] = "k\u00e4tzchen"
        text = json.dumps(data.content["train"], ensure_ascii=False)
        data.ann_file("train").write_bytes(content(text))

    return make


def _entry(split: str, key: str, entry: Any) -> Case:
    return lambda data: data.content[split][key].append(entry)


def _classes(*names: str) -> Case:
    """Add classes with one object each in both splits."""

    def make(data: CocoFolder) -> None:
        for split in ("train", "val"):
            for name in names:
                number = data.add_class(split, name)
                data.box(split, (number, 5, 20, 20), category=number)

    return make


def _unused_class(data: CocoFolder) -> None:
    for split in ("train", "val"):
        data.add_class(split, "unicorn")


def _unknown_to_train(data: CocoFolder) -> None:
    for category in data.content["val"]["categories"]:
        category["name"] += " of the zoo"


def _crowded(data: CocoFolder) -> None:
    for i in range(12):
        data.box("train", (i, i, 20, 20))


def _rare_class(data: CocoFolder) -> None:
    owl = data.add_class("train", "owl")
    data.add_class("val", "owl")
    data.add("train", "owl.png", category=owl)
    for number in range(20):  # besides two of cats and one of a dog
        data.add("train", f"cat{number}.png")


def _cells(data: CocoFolder) -> None:
    for i in range(101):
        data.box("val", (i % 40, i // 40, 20, 20))


def _listed_twice(data: CocoFolder) -> None:
    entry = data.content["train"]["images"][0]
    data.content["train"]["images"].append({**entry, "id": 9999})
    data.box("train", (1, 2, 12, 13), image_id=9999)


def _nested(data: CocoFolder) -> None:
    for folder in ("a", "b/c"):
        data.add("train", f"{folder}/same.png")


def _similar(data: CocoFolder) -> None:
    for name in (NFC, NFD, "photo.png", "PHOTO.jpg"):
        data.add("train", name, None if name.endswith("png") else encoded("JPEG", 75))


def _copy_in_split(data: CocoFolder) -> None:
    data.add("train", "copy.png", (data.root / "train" / "train0.png").read_bytes())


def _copy_in_val(data: CocoFolder) -> None:
    # Another file format, the same pixels.
    image = Image.open(data.root / "train" / "train0.png")
    data.add("val", "copy.bmp", encoded("BMP", image=image))


def _near_copy(data: CocoFolder) -> None:
    scene = Image.fromarray(pixels(80, 140, 100))
    data.add("train", "scene.png", encoded("PNG", image=scene), width=140, height=100)
    smaller = encoded("JPEG", image=scene.resize((70, 50)), quality=60)
    data.add("val", "scene.jpg", smaller, width=70, height=50)


def _overlap(data: CocoFolder) -> None:
    data.add("val", "../train/train1.png", b"nothing")


def _without_objects(data: CocoFolder) -> None:
    data.add("train", "background.png")
    data.content["train"]["annotations"].pop()


def _no_images(data: CocoFolder) -> None:
    data.content["val"].update(images=[], annotations=[])


def _all_unreadable(data: CocoFolder) -> None:
    for path in (data.root / "val").iterdir():
        path.write_bytes(b"")


def _no_boxes(data: CocoFolder) -> None:
    data.content["val"]["annotations"].clear()


def _repeated_id(data: CocoFolder) -> None:
    data.content["train"]["images"][1]["id"] = 1


def _huge(data: CocoFolder) -> None:
    # Smaller than real images: tests lower the limit.
    data.add("train", "huge.png", encoded("PNG", image=Image.new("L", (200, 100))))
    data.content["train"]["images"][-1].update(width=200, height=100)


_JPEG = encoded("JPEG", 76, quality=95)
_GIF = encoded("GIF", image=Image.fromarray(pixels(77)).convert("P"))

# kind -> cases: name, change of the data, and `where` and `detail` of the first finding.
CASES: dict[str, list[tuple[str, Case, str, str]]] = {
    "annotations_unreadable": [
        ("malformed", _text_file(lambda t: t[:-9].encode()), "instances_train.json", "valid JSON"),
        ("UTF-16", _text_file(lambda t: t.encode("utf-16")), "instances_train.json", "not in UTF"),
        (
            "Latin-1",
            _text_file(lambda t: t.encode("latin-1")),
            "instances_train.json",
            "not in UTF",
        ),
        ("no COCO", _text_file(lambda t: b"[1]"), "instances_train.json", "has no list 'images'"),
        ("missing", lambda d: d.content.pop("train"), "instances_train.json", "No such"),
    ],
    "classes_unusable": [
        ("unknown to training", _unknown_to_train, "instances_val.json", "of the zoo'] occurs in"),
        (
            "none",
            lambda d: d.content["train"].update(categories=[]),
            "instances_train.json",
            "no ca",
        ),
    ],
    "split_refused": [
        ("ids repeat", _repeated_id, "instances_train.json", "occurs more than once")
    ],
    "empty_split": [
        ("no images", _no_images, "instances_val.json", "lists no images"),
        ("none readable", _all_unreadable, "instances_val.json", "none of 2 images can be used"),
        (
            "none there",
            lambda d: [p.unlink() for p in (d.root / "val").iterdir()],
            "instances_val.json",
            "none of its 2 images is in",
        ),
    ],
    "no_boxes": [("no boxes", _no_boxes, "instances_val.json", "none of 0 boxes can be used")],
    "missing_image": [
        ("missing", _missing, "gone.png", ""),
        (
            "other case",
            lambda d: d.add("train", "TRAIN0.png", b"nothing"),
            "TRAIN0.png",
            "there is train0.png, whose name differs only in form",
        ),
        (
            "other Unicode form",
            _other_form,
            NFC,
            f"there is {NFD}, whose name differs only in form",
        ),
    ],
    "dead_link": [("dead link", _dead_link, "link.png", "points to nowhere.png")],
    "not_a_file": [
        ("folder", _folder, "folder.png", "a folder"),
        ("pipe", _pipe, "pipe.png", "a pipe or device"),
    ],
    "empty_file": [("zero bytes", _file("zero.png", b""), "zero.png", "")],
    "truncated_image": [
        ("JPEG", _file("cut.jpg", _JPEG[:-400]), "cut.jpg", "truncated"),
        ("PNG", _file("cut.png", encoded("PNG", 79)[:-400]), "cut.png", "truncated"),
    ],
    "unreadable_image": [
        ("text", _file("page.jpg", b"<html>404</html>"), "page.jpg", "the content is none of JPEG"),
    ],
    "bomb": [
        ("bomb", _file("bomb.png", png_header(30000, 30000)), "bomb.png", "900,000,000 pixels")
    ],
    "size_disagrees": [
        (
            "cropped",
            _file("cropped.png", encoded("PNG", 82), width=128, height=96),
            "cropped.png",
            "the image is 64x48, but 128x96 in the annotations",
        )
    ],
    "size_missing": [
        ("null", _file("a.png", encoded("PNG", 83), width=None), "a.png", "the image is 64x48"),
    ],
    "wrong_extension": [
        ("PNG as JPEG", _file("a.jpg", encoded("PNG", 84)), "a.jpg", "holds PNG"),
        ("no extension", _file("picture", _JPEG), "picture", "holds JPEG"),
    ],
    "exif_rotated": [
        (
            "upright",
            _file("turned.jpg", _rotated(), width=HEIGHT, height=WIDTH),
            "turned.jpg",
            "orientation 6, stored as 64x48",
        ),
        ("as stored", _file("turned.jpg", _rotated()), "turned.jpg", "orientation 6"),
    ],
    "huge_image": [("huge", _huge, "huge.png", "200x100")],
    "animated_image": [("GIF", _file("a.gif", _several("GIF")), "a.gif", "a GIF")],
    "multi_page_image": [("TIFF", _file("a.tif", _several("TIFF")), "a.tif", "a TIFF")],
    "deep_image": [
        ("TIFF", _file("deep.tif", _tiff("I")), "deep.tif", "a TIFF"),
        (
            "PNG",
            _file("deep.png", encoded("PNG", image=Image.open(io.BytesIO(_tiff("I"))))),
            "deep.png",
            "a PNG",
        ),
    ],
    "pixel_range": [("TIFF", _file("deep.tif", _tiff("I")), "0 to 65535", "deep.tif")],
    "few_levels": [
        ("gray", _file("dark.png", _dark()), "dark.png", "10 gray levels left"),
        ("color", _file("dark.png", _dark_colors()), "dark.png", "1 gray level left"),
    ],
    "float_image": [("TIFF", _file("float.tif", _tiff("F")), "float.tif", "a TIFF")],
    "cmyk_image": [
        (
            "JPEG",
            _file("print.jpg", encoded("JPEG", image=Image.fromarray(pixels(85)).convert("CMYK"))),
            "print.jpg",
            "a JPEG",
        )
    ],
    "outside_folder": [("link", _link_outside, "away.png", "_elsewhere.png")],
    "byte_order_mark": [
        ("BOM", _text_file(lambda t: b"\xef\xbb\xbf" + t.encode()), "instances_train.json", "")
    ],
    "image_entry_malformed": [
        ("no name", _entry("train", "images", {"id": 50}), "{'id': 50}", ""),
        ("no id", _entry("train", "images", {"file_name": "x.png"}), "{'file_name': 'x.png'}", ""),
        ("NUL", _entry("train", "images", {"id": 50, "file_name": "x\0.png"}), "x\0.png", "NUL"),
        (
            "half a pair",
            _entry("train", "images", {"id": 50, "file_name": "x\ud800.png"}),
            "x\ud800.png",
            "surrogate",
        ),
    ],
    "annotation_malformed": [("text", _entry("train", "annotations", "box"), "box", "")],
    "annotation_without_image": [
        ("no image", _box((1, 1, 9, 9), image_id=77), "image 77", "annotation 4"),
    ],
    "unknown_class": [
        ("id", _box((1, 1, 9, 9), category_id=9), "train2.png", "annotation 4: 9"),
        ("null", _box((1, 1, 9, 9), category_id=None), "train2.png", "annotation 4: None"),
    ],
    "box_not_finite": [
        ("NaN", _box([1, 1, float("nan"), 9]), "train2.png", "annotation 4: [1, 1, nan, 9]"),
        ("infinite", _box([1, 1, float("inf"), 9]), "train2.png", "annotation 4: [1, 1, inf, 9]"),
        ("endless", _box([1, 1, 10**400, 9]), "train2.png", "annotation 4: [1, 1, 1000"),
    ],
    "box_null": [
        ("whole", _box(None), "train2.png", "annotation 4: None"),
        ("part", _box([1, None, 9, 9]), "train2.png", "annotation 4: [1, None, 9, 9]"),
    ],
    "box_malformed": [
        ("three", _box([1, 1, 9]), "train2.png", "annotation 4: [1, 1, 9]"),
        ("words", _box([1, 1, "9px", 9]), "train2.png", "annotation 4: [1, 1, '9px', 9]"),
        ("text", _box("1,1,9,9"), "train2.png", "annotation 4: 1,1,9,9"),
    ],
    "box_as_text": [("text", _box(["1", "1", "9", "9"]), "train2.png", "['1', '1', '9', '9']")],
    "box_zero_area": [("line", _box((1, 1, 0, 9)), "train2.png", "annotation 4: [1, 1, 0, 9]")],
    "box_inverted": [("left", _box((20, 1, -9, 9)), "train2.png", "annotation 4: [20, 1, -9, 9]")],
    "box_out_of_bounds": [
        ("beyond", _box((50, 40, 30, 30)), "train2.png", "'cat' at (50, 40, 80, 70)"),
        ("before", _box((-5, 4, 30, 30)), "train2.png", "'cat' at (-5, 4, 25, 34)"),
    ],
    "objects_unusable": [
        ("null", _file("none.png", encoded("PNG", 87), bbox=None), "none.png", "1 object"),
        (
            "no size",
            _file("none.png", encoded("PNG", 87), bbox=(70, 1, 9, 9), width=None),
            "none.png",
            "1 object",
        ),
    ],
    "box_outside": [
        ("declared", _box((64, 1, 9, 9)), "train2.png", "annotation 4"),
        (
            "no size",
            _file("a.png", encoded("PNG", 86), bbox=(70, 1, 9, 9), width=None),
            "a.png",
            "'cat' at (70, 1, 79, 10)",
        ),
    ],
    "box_duplicate": [("twice", _box((8, 8, 32, 32)), "train2.png", "'cat' at (8, 8, 40, 40)")],
    "box_crowd": [
        ("crowd", _box((1, 1, 9, 9), iscrowd=1), "train2.png", "'cat' at (1, 1, 10, 10)")
    ],
    # At 640 x 640 an image of 64 x 48 is 10 times as wide and 13.3 times as high.
    "object_tiny": [("tiny", _box((1, 1, 0.3, 9)), "train2.png", "'cat' at (1, 1, 1.3, 10)")],
    "object_vanishing": [
        ("gone", _box((1, 1, 9, 0.07)), "train2.png", "'cat' at (1, 1, 10, 1.07)")
    ],
    "too_many_objects": [("crowded", _crowded, "train2.png", "13 objects, 12 queries")],
    "class_rare": [
        (
            "one of 24",
            _rare_class,
            "dog",
            "in 1 of 24 images, 'cat' in 22; repeat_threshold 0.33 repeats them 2.8 times",
        )
    ],
    "above_coco_limit": [
        ("101 cells", _cells, "val1.png", "101 of 'cat': AP counts 300 detections")
    ],
    "image_without_objects": [("background", _without_objects, "background.png", "")],
    "class_without_objects": [("unicorn", _unused_class, "unicorn", "cannot be learned")],
    "class_name_odd": [
        ("quotes", _classes('a "big" cat'), "'a \"big\" cat'", "quotes"),
        ("slashes", _classes("cat/dog"), "'cat/dog'", "slashes"),
        ("unicode", _classes("k\u00e4tzchen"), "'k\u00e4tzchen'", "characters outside ASCII"),
        ("blanks", _classes(" cat "), "' cat '", "extra spaces"),
        ("HTML", _classes("<img src=x onerror=hack()>"), "'<img", "angle brackets"),
        ("empty", _classes(""), "''", "empty"),
    ],
    "class_names_similar": [("case", _classes("Cat"), "'cat', 'Cat'", "")],
    "listed_twice": [("twice", _listed_twice, "train0.png", "")],
    "same_name": [("nested", _nested, "same.png", "in ")],
    "similar_names": [("forms", _similar, NFC, f"and {NFD}")],
    "duplicate_image": [("copy", _copy_in_split, "copy.png", "identical to train0.png")],
    "split_overlap": [("overlap", _overlap, "../train/train1.png", "")],
    "leak_identical": [
        ("other format", _copy_in_val, "copy.bmp", "identical to train0.png of the training split")
    ],
    "leak_near": [
        ("smaller JPEG", _near_copy, "scene.jpg", "looks like scene.png of the training split")
    ],
}
