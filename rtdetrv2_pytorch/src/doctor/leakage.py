"""The same picture twice: within a split, or in training and validation."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..data.findings import Finding, Illustration, finding
from .image_files import Picture, directions

# The same picture compressed, scaled or brightened correlates with itself by 0.987 and more;
# different pictures of one kind, as digits or cells under one microscope, by 0.94 and less.
_NEAR = 0.98
_CHUNK = 256  # validation images that are compared at once


@dataclass(frozen=True)
class Seen:
    """A picture that the trainer uses, and how it is named."""

    name: str
    path: Path
    picture: Picture
    shown: Illustration | None


def duplicates(split: str, images: Sequence[Seen]) -> Iterator[Finding]:
    """Identical images of one split; a file that is listed twice is no copy of itself."""
    first: dict[str, Seen] = {}
    for image in images:
        known = first.setdefault(image.picture.digest, image)
        if known.path != image.path:
            yield finding(
                "duplicate_image",
                image.name,
                f"identical to {known.name}",
                split=split,
                picture=image.shown,
            )


def leaks(train: Sequence[Seen], val: Sequence[Seen]) -> Iterator[Finding]:
    """Validation images that are, or nearly are, training images; not those of the same file."""
    shared = {image.path for image in train} & {image.path for image in val}
    train = [image for image in train if image.path not in shared]
    val = [image for image in val if image.path not in shared]
    by_digest = {image.picture.digest: image for image in reversed(train)}
    others = []
    for image in val:
        twin = by_digest.get(image.picture.digest)
        if twin is None:
            others.append(image)
        else:
            yield _leak("leak_identical", image, f"identical to {twin.name} of the training split")
    yield from _near(list(by_digest.values()), others)


def _near(train: Sequence[Seen], val: Sequence[Seen]) -> Iterator[Finding]:
    train = [image for image in train if image.picture.look]
    val = [image for image in val if image.picture.look]
    if not train or not val:
        return
    known = directions([image.picture.look for image in train])
    for start in range(0, len(val), _CHUNK):
        chunk = val[start : start + _CHUNK]
        alike = directions([image.picture.look for image in chunk]) @ known.T
        for image, nearest, share in zip(
            chunk, alike.argmax(axis=1), alike.max(axis=1), strict=True
        ):
            if share >= _NEAR:
                twin = train[int(nearest)].name
                detail = f"looks like {twin} of the training split ({share:.1%} alike)"
                yield _leak("leak_near", image, detail)


def _leak(kind: str, image: Seen, detail: str) -> Finding:
    return finding(kind, image.name, detail, split="val", picture=image.shown)
