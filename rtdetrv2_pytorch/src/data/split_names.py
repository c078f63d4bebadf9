"""Training, validation and test: one rule for data sets, folders and files.

Splits that the data names are used. Only where it names none is a random part held out.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ..misc.text import counted

Part = Literal["train", "val", "test"]

PARTS: tuple[Part, ...] = ("train", "val", "test")
VAL_PERCENT = 20  # of a random split

_ENDING = "(set|data|img|imgs|image|images|split|list)?s?"
_WORDS: Mapping[Part, re.Pattern[str]] = {
    "train": re.compile(f"(train|training|trainval|trn){_ENDING}"),
    "val": re.compile(f"(val|valid|validation|validate|validating|eval|evaluation|dev){_ENDING}"),
    "test": re.compile(f"(test|testing|tst){_ENDING}"),
}


def split_of(*texts: str) -> Part | None:
    """Return the split that the first text with such a word names, by its first such word.

    Words end at digits, punctuation, and before capitals: "train2017", "my_val", "TestImages".
    """
    for text in texts:
        spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text)
        for word in re.findall(r"[^\W\d_]+", spaced.lower()):
            for part, pattern in _WORDS.items():
                if pattern.fullmatch(word):
                    return part
    return None


def split_of_path(path: str) -> Part | None:
    """Return the split that a path names, by its last part that does: "VOC2007/train"."""
    return split_of(*reversed(path.split("/")))


@dataclass(frozen=True)
class Decision:
    """How the groups of a data set (datasets, folders or files) are used.

    `parts` maps each used group to its split; images of the groups in `divided` are assigned at
    random to training and validation.
    """

    parts: Mapping[str, Part]
    divided: frozenset[str]
    note: str  # for the user

    def part_of(self, group: str) -> Part | None:
        """Return the split of a group; None if it is divided, or not used."""
        return None if group in self.divided else self.parts.get(group)

    def used_for(self, part: Part) -> list[str]:
        """Return the groups that are a split."""
        return [g for g, p in self.parts.items() if p == part and g not in self.divided]


def decide(groups: Mapping[str, int]) -> Decision:
    """Decide what is training, validation and test, from the names of groups.

    - A group whose name contains the word of a split is that split. Several may be the same.
    - Without a training group, the groups without such a name are for training, or else the
      validation groups.
    - Without a validation group, the test split is used for validation.
    - Without both, a fifth of all images is held out at random. Images of a test split are never
      trained on.

    The decision has no training group if there is nothing to train on; the note says why.

    Args:
        groups: number of images by name, "VOC2007/train".
    """
    groups = {name: count for name, count in groups.items() if count}
    named = {name: split_of_path(name) for name in groups}
    parts: dict[str, Part] = {name: part for name, part in named.items() if part is not None}
    others = [name for name, part in named.items() if part is None]
    of: dict[Part, list[str]] = {part: [n for n, p in parts.items() if p == part] for part in PARTS}
    reasons = []
    if not of["train"] and others:
        of["train"], others = others, []
        if of["val"] or of["test"]:
            reasons.append(f"{_listed(of['train'])} is for training: no other split is")
    if not of["train"] and of["val"]:
        of["train"], of["val"] = of["val"], []
        reasons.append(f"no training split found, so {_listed(of['train'])} is for training")
    divided: frozenset[str] = frozenset()
    if not of["train"]:
        found = f"only a test split ({_listed(of['test'])})" if of["test"] else "no image"
        note = f"{found} found, nothing to train on; add training images, or rename the split"
        return Decision(dict.fromkeys(of["test"], "test"), divided, note)
    if not of["val"] and of["test"]:
        of["val"], of["test"] = of["test"], []
        reasons.append("no validation split found; the test split is used for validation")
    elif not of["val"]:
        if others:
            why = f"the data names a training split only, so {_listed(others)} is divided, too"
            reasons.append(why)
            of["train"], others = of["train"] + others, []
        divided = frozenset(of["train"])
    parts = {name: part for part, names in of.items() for name in names}
    return Decision(parts, divided, _note(groups, of, divided, others, reasons))


def held_out(images: Sequence[tuple[str, Collection[str]]], *, seed: int = 0) -> list[bool]:
    """Choose the images that are held out for validation: a fifth, of each class alike.

    The choice depends on the names, the classes and the seed only, and not on the order.

    Args:
        images: path of each image, and the classes of its objects.
        seed: of the choice.
    """
    num_with = Counter(name for _, classes in images for name in set(classes))

    def key(number: int) -> tuple[str, str, str]:
        path, classes = images[number]
        rarest = min(classes, key=lambda each: (num_with[each], each), default="")
        name = path.rpartition("/")[2].encode(errors="surrogatepass")
        return rarest, hashlib.sha256(f"{seed}:".encode() + name).hexdigest(), path

    step = 100 // VAL_PERCENT
    ordered = sorted(range(len(images)), key=key)
    # Few images: at least one for validation.
    chosen = set(ordered[min(step, len(ordered)) - 1 :: step] if len(ordered) > 1 else [])
    return [number in chosen for number in range(len(images))]


def _note(
    groups: Mapping[str, int],
    of: Mapping[Part, Sequence[str]],
    divided: Collection[str],
    others: Sequence[str],
    reasons: Sequence[str],
) -> str:
    def total(names: Collection[str]) -> str:
        return counted(sum(groups[name] for name in names), "image")

    titles: Sequence[tuple[Part, str]] = (("train", "training"), ("val", "validation"))
    if divided:
        why = "; ".join(reasons) or (
            "the data names a training split only"
            if of["train"] and _is_named(of["train"])
            else "the data names no splits"
        )
        text = (
            f"Random split of {total(divided)} ({why}): {100 - VAL_PERCENT} % training, "
            f"{VAL_PERCENT} % validation, stratified by class, seed 0"
        )
    else:
        used = [f"{title} {_listed(of[part])} ({total(of[part])})" for part, title in titles]
        text = f"Splits of the data: {', '.join(used)}" + "".join(f"; {each}" for each in reasons)
    if of["test"]:
        text += f"; test split {_listed(of['test'])} ({total(of['test'])}) not used"
    if others:
        text += f"; {_listed(others)} ({total(others)}) in no split, not used"
    return text


def _is_named(names: Sequence[str]) -> bool:
    return any(split_of_path(name) is not None for name in names)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
