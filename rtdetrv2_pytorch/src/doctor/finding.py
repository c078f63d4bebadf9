"""The vocabulary: every kind of finding, with what the trainer does about it.

Kinds do not repeat the rules of the trainer: `data/` decides, and the examination asks it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

Box = tuple[float, float, float, float]


class Action(StrEnum):
    """What the trainer does about it."""

    USES = "uses"
    CLIPS = "clips"
    SKIPS = "skips"
    REFUSES = "refuses"


class Severity(StrEnum):
    """How much it matters."""

    ERROR = "error"  # there is no training with it
    WARNING = "warning"  # something is lost, or the metrics are not what they seem
    NOTE = "note"  # good to know


@dataclass(frozen=True)
class Kind:
    """A kind of finding."""

    name: str  # as in data_report.json
    title: str
    severity: Severity
    action: Action
    effect: str  # what the trainer does, in words
    remedy: str


@dataclass(frozen=True)
class Shown:
    """A picture for the report."""

    path: Path
    size_wh: tuple[int, int] | None = None  # as the trainer sees it, if it uses it


@dataclass(frozen=True)
class Finding:
    """One offender."""

    kind: Kind
    where: str  # file, image or class
    detail: str = ""
    split: str = ""  # empty: of no split, or of several
    picture: Shown | None = None
    boxes: Sequence[Box] = ()  # to draw on it: xyxy in pixels of the image as the trainer sees it
    count: int = 1  # of boxes, where the image has several

    def __str__(self) -> str:
        split = f"{self.split}: " if self.split else ""
        return f"{split}{self.where}{f' ({self.detail})' if self.detail else ''}"


def _kind(
    name: str, title: str, severity: str, action: str, effect: str, remedy: str
) -> tuple[str, Kind]:
    return name, Kind(name, title, Severity(severity), Action(action), effect, remedy)


KINDS: dict[str, Kind] = dict(
    (
        # --- what ends a training before it begins ---
        _kind(
            "annotations_unreadable",
            "annotation files that cannot be read",
            *("error", "refuses", "the whole split is lost, so nothing is trained"),
            "repair the file or export it again, as UTF-8",
        ),
        _kind(
            "classes_unusable",
            "lists of classes that cannot be used",
            *("error", "refuses", "labels would be ambiguous, so nothing is trained"),
            "give both splits one list of classes, each with its own id and name",
        ),
        _kind(
            "split_refused",
            "splits that cannot be used",
            *("error", "refuses", "boxes could not be told apart, so nothing is trained"),
            "do what the message says",
        ),
        _kind(
            "empty_split",
            "splits without a usable image",
            *("error", "refuses", "there is nothing to train on, or to measure with"),
            "add images, or choose another split",
        ),
        _kind(
            "no_boxes",
            "splits without a usable box",
            *("error", "refuses", "there is nothing to learn, or to measure"),
            "label the images, or choose other classes or another split",
        ),
        # --- files ---
        _kind(
            "missing_image",
            "listed images whose file is missing",
            *("warning", "skips", "the image and its boxes are left out"),
            "add the file, or remove its entry",
        ),
        _kind(
            "dead_link",
            "links that lead nowhere",
            *("warning", "skips", "the image and its boxes are left out"),
            "restore what the link points to",
        ),
        _kind(
            "not_a_file",
            "folders and other things named like images",
            *("warning", "skips", "the image and its boxes are left out"),
            "put an image there, or remove the entry",
        ),
        _kind(
            "empty_file",
            "files of zero bytes",
            *("warning", "skips", "the image and its boxes are left out"),
            "copy the file again",
        ),
        _kind(
            "truncated_image",
            "images cut off in the middle",
            *("warning", "skips", "the image and its boxes are left out"),
            "copy the file again",
        ),
        _kind(
            "unreadable_image",
            "images that cannot be decoded",
            *("warning", "skips", "the image and its boxes are left out"),
            "save the image again, or remove it",
        ),
        _kind(
            "bomb",
            "images with more pixels than can be decoded safely",
            *("warning", "skips", "the image is not decoded; it and its boxes are left out"),
            "shrink the image, or cut it into tiles",
        ),
        _kind(
            "size_disagrees",
            "pictures of another size than their annotations say",
            *("warning", "skips", "boxes would be wrong, so the image is left out, not cropped"),
            "annotate this picture again, or put back the one that was annotated",
        ),
        _kind(
            "size_missing",
            "images whose annotations declare no size",
            *("note", "uses", "the boxes are taken as they are, for the picture that is there"),
            "write width and height, so that a wrong picture is noticed",
        ),
        _kind(
            "wrong_extension",
            "files named after another format",
            *("note", "uses", "the content decides, not the name"),
            "rename the file for other programs",
        ),
        _kind(
            "exif_rotated",
            "images that a camera stored rotated",
            *(
                "note",
                "uses",
                "they are turned upright, unless the declared size is the stored one",
            ),
            "look whether the boxes fit, as drawn here",
        ),
        _kind(
            "huge_image",
            "very large images",
            *("warning", "uses", "they are decoded whole each time, which costs time and memory"),
            "shrink the image, or cut it into tiles",
        ),
        _kind(
            "animated_image",
            "animated images",
            *("warning", "uses", "only the first frame"),
            "save the frame that was annotated as an image of its own",
        ),
        _kind(
            "multi_page_image",
            "files with several pages",
            *("warning", "uses", "only the first page"),
            "save the page that was annotated as an image of its own",
        ),
        _kind(
            "deep_image",
            "images of more than 8 bits a channel",
            *("note", "uses", "scaled to 8 bits"),
            "convert the image if it comes out too dark or too bright, as shown here",
        ),
        _kind(
            "float_image",
            "images of floating-point numbers",
            *("note", "uses", "scaled to 8 bits: 0..1 if no value is higher"),
            "convert the image if it comes out too dark or too bright, as shown here",
        ),
        _kind(
            "cmyk_image",
            "images for print (CMYK)",
            *("note", "uses", "converted to RGB without a colour profile"),
            "convert the image if its colours come out wrong, as shown here",
        ),
        _kind(
            "outside_folder",
            "files outside the folder of their split",
            *("note", "uses", "the file is read where it is; no picture of it is shown"),
            "copy it into the folder if the data is to be moved",
        ),
        # --- annotations ---
        _kind(
            "byte_order_mark",
            "annotation files that begin with a byte order mark",
            *("note", "uses", "the mark is ignored"),
            "save as UTF-8 without BOM for other programs",
        ),
        _kind(
            "unlisted_image",
            "images without annotation",
            *("warning", "skips", "an image that no split lists is left out"),
            "list it, without boxes if nothing is on it",
        ),
        _kind(
            "image_entry_malformed",
            "image entries without id or file name",
            *("warning", "skips", "nothing says which file is meant"),
            "repair or remove the entry",
        ),
        _kind(
            "annotation_malformed",
            "annotations that are malformed",
            *(
                "warning",
                "skips",
                "left out; a project's file that cannot be read costs its own image",
            ),
            "repair or remove it",
        ),
        _kind(
            "annotation_without_image",
            "annotations without their image",
            *("warning", "skips", "the annotation is left out"),
            "add the image, or remove the annotation",
        ),
        _kind(
            "unknown_class",
            "annotations of an unknown class",
            *("warning", "skips", "the annotation is left out"),
            "add the class to the list, or correct its id",
        ),
        _kind(
            "unknown_geometry",
            "objects of a shape that is not trained on",
            *("warning", "skips", "the object is left out"),
            "switch on the conversion of shapes; points have no box and are always left out",
        ),
        # --- boxes ---
        _kind(
            "box_not_finite",
            "boxes with NaN or infinity",
            *("warning", "skips", "the box is left out"),
            "draw the box again",
        ),
        _kind(
            "box_null",
            "boxes that are null, in whole or in part",
            *("warning", "skips", "the box is left out"),
            "draw the box again",
        ),
        _kind(
            "box_malformed",
            "boxes that are not four numbers",
            *("warning", "skips", "the box is left out"),
            "write [x, y, width, height]",
        ),
        _kind(
            "box_as_text",
            "boxes with numbers written as text",
            *("note", "uses", "the numbers are read"),
            "write numbers for other programs",
        ),
        _kind(
            "box_zero_area",
            "boxes without area",
            *("warning", "skips", "the box is left out"),
            "draw the box again",
        ),
        _kind(
            "box_inverted",
            "boxes of negative width or height",
            *("warning", "skips", "the box is left out"),
            "write [x, y, width, height], counted from the upper left corner",
        ),
        _kind(
            "box_out_of_bounds",
            "boxes that stick out of their image",
            *("warning", "clips", "the part inside the image is used"),
            "look whether the boxes belong to this picture",
        ),
        _kind(
            "box_outside",
            "boxes outside their image",
            *("warning", "skips", "the box is left out"),
            "look whether the boxes belong to this picture",
        ),
        _kind(
            "box_duplicate",
            "boxes that are there twice",
            *("warning", "uses", "all of them: the model learns to find the object twice"),
            "remove the copies",
        ),
        _kind(
            "box_crowd",
            "boxes around crowds",
            *("note", "skips", "not trained on; what is found there is neither right nor wrong"),
            "draw single objects if they are to be learned",
        ),
        _kind(
            "object_tiny",
            "objects that are tiny at the training size",
            *("note", "uses", "they are hard to learn"),
            "train at a larger size, or cut the images into tiles",
        ),
        _kind(
            "object_vanishing",
            "objects below one pixel at the training size",
            *("warning", "uses", "but not in training images where they stay that small"),
            "train at a larger size, or cut the images into tiles",
        ),
        _kind(
            "too_many_objects",
            "images with more objects than queries",
            *("warning", "uses", "what has no query left is not learned, and cannot be found"),
            "raise num_queries, or cut the images into tiles",
        ),
        _kind(
            "image_without_objects",
            "images without objects",
            *("note", "uses", "as background, on which nothing is to be found"),
            "label them if there is something on them",
        ),
        # --- classes ---
        _kind(
            "class_without_objects",
            "classes without objects",
            *("warning", "uses", "it cannot be learned, or cannot be measured"),
            "label objects of this class, or remove it",
        ),
        _kind(
            "class_name_odd",
            "class names with quotes, slashes, stray blanks or characters outside ASCII",
            *("note", "uses", "the name is kept as it is"),
            "rename the class if a program of yours trips over it",
        ),
        _kind(
            "class_names_similar",
            "class names that differ only in case, blanks or Unicode form",
            *("warning", "uses", "as different classes"),
            "merge them if they mean the same",
        ),
        _kind(
            "class_not_selected",
            "objects of classes that are not trained on",
            *("note", "skips", "the object is left out"),
            "select the class if it is to be learned",
        ),
        # --- names, and the same image twice ---
        _kind(
            "listed_twice",
            "files that are listed more than once",
            *("warning", "uses", "as often as it is listed"),
            "merge the entries: each holds only a part of the boxes",
        ),
        _kind(
            "same_name",
            "images of one name in several folders",
            *("note", "uses", "as different images"),
            "look whether it is the same picture",
        ),
        _kind(
            "similar_names",
            "images whose names differ only in case, Unicode form or extension",
            *("note", "uses", "as different images"),
            "rename them: other systems take them for one file",
        ),
        _kind(
            "duplicate_image",
            "identical images in one split",
            *("note", "uses", "each of them"),
            "remove the copies, above all if their boxes differ",
        ),
        _kind(
            "split_overlap",
            "images in both splits",
            *("warning", "uses", "for training and for measuring: the metrics come out too good"),
            "leave each image in one split only",
        ),
        _kind(
            "leak_identical",
            "identical images in training and validation",
            *("warning", "uses", "for training and for measuring: the metrics come out too good"),
            "leave each image in one split only",
        ),
        _kind(
            "leak_near",
            "nearly identical images in training and validation",
            *("warning", "uses", "for training and for measuring: the metrics come out too good"),
            "put pictures of one scene, or frames of one video, into one split",
        ),
        _kind(
            "left_out",
            "images in no split",
            *("warning", "skips", "the image is left out"),
            "give it a tag or collection of one of the splits, or leave it out on purpose",
        ),
    )
)


def finding(
    kind: str,
    where: str,
    detail: str = "",
    *,
    split: str = "",
    picture: Shown | None = None,
    boxes: Sequence[Box] = (),
    count: int = 1,
) -> Finding:
    """Make a finding of a kind by its name."""
    return Finding(KINDS[kind], where, detail, split, picture, boxes, count)
