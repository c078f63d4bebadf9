"""Categories: ids in annotation files, labels of the network, and class names."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..misc.coco_categories import COCO_CATEGORIES
from ..misc.errors import DatasetError

CategoryId = int | str

MAX_EXACT = 2**53  # of the integers in float64, which tables of detections contain


@dataclass(frozen=True)
class CategoryTable:
    """Categories in label order: label i is `ids[i]` in the file, and its class is `names[i]`.

    Training, evaluation, checkpoints and exports use this table, which is built from the data.
    """

    ids: tuple[CategoryId, ...]
    names: tuple[str, ...]

    @cached_property
    def label_of(self) -> dict[str, int]:
        """Label by class name."""
        return {name: label for label, name in enumerate(self.names)}

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def evaluation_ids(self) -> tuple[int, ...]:
        """Integer ids for COCO metrics: those of the file if float64 can hold them, else 1..K."""
        if all(isinstance(id_, int) and abs(id_) <= MAX_EXACT for id_ in self.ids):
            return self.ids  # type: ignore[return-value]
        return tuple(range(1, len(self.ids) + 1))

    @property
    def is_mscoco(self) -> bool:
        """Whether these are the 80 categories of COCO."""
        return dict(zip(self.ids, self.names, strict=True)) == COCO_CATEGORIES

    @classmethod
    def mscoco(cls) -> "CategoryTable":
        """The 80 categories of COCO."""
        return cls(tuple(COCO_CATEGORIES), tuple(COCO_CATEGORIES.values()))

    @classmethod
    def from_coco(
        cls, categories: Sequence[Mapping[str, Any]], used: set[CategoryId], *, source: str
    ) -> "CategoryTable":
        """Read the `categories` of a COCO file.

        Labels follow the ids in ascending order; ids may be any integers or strings, and numbers
        written as strings count as numbers. Exports of Roboflow have a parent category without
        boxes, which all others name as their supercategory; it is not a class.

        Args:
            categories: entries with `id` and `name`.
            used: ids that annotations refer to.
            source: the file, for messages.

        Raises:
            DatasetError: if there are none, or ids or names repeat.
        """
        for entry in categories:
            if not isinstance(entry, Mapping) or "id" not in entry or "name" not in entry:
                raise DatasetError(
                    f"{source}: category {entry!r} lacks an id or a name; export it again"
                )
        classes = [
            (normalize_id(entry["id"]), str(entry["name"]))
            for entry in categories
            if not _is_unused_parent(entry, categories, used)
        ]
        if not classes:
            raise DatasetError(f"{source}: no categories; a detector needs at least one class")
        for what, values in zip(("id", "name"), zip(*classes, strict=True), strict=True):
            repeated = [value for value, count in Counter(values).items() if count > 1]
            if repeated:
                raise DatasetError(
                    f"{source}: category {what} {repeated[0]!r} occurs more than once; give "
                    f"each class its own {what}"
                )
        if all(isinstance(id_, int) for id_, _ in classes):
            classes.sort(key=lambda c: int(c[0]))
        return cls(tuple(id_ for id_, _ in classes), tuple(name for _, name in classes))

    def check_shared(self, other: "CategoryTable", *, source: str) -> None:
        """Check that this table has a class of another file; objects of others are skipped.

        Raises:
            DatasetError: if it has none of them.
        """
        if not any(name in self.label_of for name in other.names):
            raise DatasetError(
                f"{source}: none of its classes {list(other.names)} occurs in the training split, "
                f"whose classes are {list(self.names)}; use the same names for both"
            )


def _is_unused_parent(
    entry: Mapping[str, Any], categories: Sequence[Mapping[str, Any]], used: set[CategoryId]
) -> bool:
    others = [c for c in categories if c is not entry]
    return (
        normalize_id(entry["id"]) not in used
        and len(others) > 0
        and all(c.get("supercategory") == entry["name"] for c in others)
    )


def normalize_id(id_: Any) -> CategoryId:
    """Convert numbers written as strings or floats to integers."""
    if isinstance(id_, bool) or id_ is None:
        return str(id_)
    if isinstance(id_, float) and id_.is_integer():
        return int(id_)
    if isinstance(id_, str):
        try:
            return int(id_)
        except ValueError:
            return id_
    return id_ if isinstance(id_, int) else str(id_)
