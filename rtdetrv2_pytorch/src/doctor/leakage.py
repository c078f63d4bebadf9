"""Duplicate images: within a split, or in training and validation."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..data.findings import Finding, Illustration
from .image_files import ImageFacts, directions

# An image and its compressed, scaled or brightened copy correlate by 0.987 or more; different
# images of one kind, as digits or cells under one microscope, by 0.94 or less.
_NEAR = 0.98
_CHUNK = 256  # validation images per matrix product


@dataclass(frozen=True)
class UsedImage:
    """An image that the trainer uses."""

    name: str
    path: Path
    facts: ImageFacts
    picture: Illustration | None


def duplicates(split: str, images: Sequence[UsedImage]) -> Iterator[Finding]:
    """Yield identical images of one split, except for files that are listed twice."""
    first: dict[str, UsedImage] = {}
    for image in images:
        known = first.setdefault(image.facts.digest, image)
        if known.path != image.path:
            yield Finding(
                "duplicate_image",
                image.name,
                f"identical to {known.name}",
                split=split,
                picture=image.picture,
            )


def leaks(train: Sequence[UsedImage], val: Sequence[UsedImage]) -> Iterator[Finding]:
    """Yield validation images that are identical or similar to another training image."""
    shared = {image.path for image in train} & {image.path for image in val}
    train = [image for image in train if image.path not in shared]
    val = [image for image in val if image.path not in shared]
    by_digest = {image.facts.digest: image for image in reversed(train)}
    others = []
    for image in val:
        twin = by_digest.get(image.facts.digest)
        if twin is None:
            others.append(image)
        else:
            yield _leak_finding(
                "leak_identical", image, f"identical to {twin.name} of the training split"
            )
    yield from _near_duplicates(list(by_digest.values()), others)


def _near_duplicates(train: Sequence[UsedImage], val: Sequence[UsedImage]) -> Iterator[Finding]:
    train = [image for image in train if image.facts.look]
    val = [image for image in val if image.facts.look]
    if not train or not val:
        return
    known = directions([image.facts.look for image in train])
    for start in range(0, len(val), _CHUNK):
        chunk = val[start : start + _CHUNK]
        alike = directions([image.facts.look for image in chunk]) @ known.T
        for image, nearest, share in zip(
            chunk, alike.argmax(axis=1), alike.max(axis=1), strict=True
        ):
            if share >= _NEAR:
                twin = train[int(nearest)].name
                detail = f"looks like {twin} of the training split ({share:.1%} alike)"
                yield _leak_finding("leak_near", image, detail)


def _leak_finding(kind: str, image: UsedImage, detail: str) -> Finding:
    return Finding(kind, image.name, detail, split="val", picture=image.picture)
