"""All kinds of findings: severity, effect on training, and remedy.

The kinds describe the rules of the data layer; `docs/data_doctor.md` shows this table.
"""

from dataclasses import dataclass

from .severity import Action, Severity


@dataclass(frozen=True)
class Kind:
    """A kind of finding."""

    name: str  # as in data_report.json
    title: str
    severity: Severity
    action: Action
    effect: str  # description of the effect on training
    remedy: str


_Rows = dict[str, tuple[str, str, str]]  # title, effect and remedy by name


def _kinds(severity: Severity, action: Action, rows: _Rows) -> dict[str, Kind]:
    return {
        name: Kind(name, title, severity, action, effect, remedy)
        for name, (title, effect, remedy) in rows.items()
    }


_SKIPS_IMAGE = "the image and its boxes are skipped"
_SKIPS_BOX = "the box is skipped"
_SKIPS_OBJECT = "the object is skipped"
_LEAKS = "for training and for validation, so the metrics are too good"
_SAVE_PART = "save the annotated part as a separate image"
_CHECK_CONVERSION = "convert the image if it is too dark or too bright, as shown here"


KINDS: dict[str, Kind] = {
    **_kinds(
        Severity.ERROR,
        Action.REFUSES,
        {
            "annotations_unreadable": (
                "unreadable annotation files",
                "the whole split is lost, so training does not start",
                "repair the file or export it again, as UTF-8",
            ),
            "classes_unusable": (
                "invalid class lists",
                "labels would be ambiguous, so training does not start",
                "use one class list for both splits, with unique ids and names",
            ),
            "split_refused": (
                "invalid splits",
                "boxes cannot be assigned to images, so training does not start",
                "follow the message",
            ),
            "empty_split": (
                "splits without a usable image",
                "there is nothing to train or validate on",
                "add images, or choose another split",
            ),
            "no_boxes": (
                "splits without a usable box",
                "there is nothing to learn or measure",
                "label the images, or choose other classes or another split",
            ),
        },
    ),
    **_kinds(
        Severity.WARNING,
        Action.SKIPS,
        {
            "missing_image": (
                "listed images whose file is missing",
                _SKIPS_IMAGE,
                "add the file, or remove its entry",
            ),
            "dead_link": ("broken symbolic links", _SKIPS_IMAGE, "restore the target of the link"),
            "not_a_file": (
                "folders and special files named like images",
                _SKIPS_IMAGE,
                "put an image there, or remove the entry",
            ),
            "empty_file": ("empty image files", _SKIPS_IMAGE, "copy the file again"),
            "truncated_image": ("truncated images", _SKIPS_IMAGE, "copy the file again"),
            "unreadable_image": (
                "images that cannot be decoded",
                _SKIPS_IMAGE,
                "save the image again, or remove it",
            ),
            "bomb": (
                "images with too many pixels to be decoded safely",
                "the image is not decoded; it and its boxes are skipped",
                "shrink the image, or cut it into tiles",
            ),
            "size_disagrees": (
                "images whose size differs from their annotations",
                "boxes would be wrong, so the image is skipped",
                "annotate this image again, or restore the annotated one",
            ),
            "unlisted_image": (
                "images that no annotation names",
                "the image is skipped",
                "annotate it, without boxes if it shows no object",
            ),
            "image_entry_malformed": (
                "image entries without an id or a valid file name",
                "the entry does not identify a file",
                "repair or remove the entry",
            ),
            "split_without_images": (
                "listed splits without images of their own",
                "the split is skipped",
                "correct the path in the data set's file, or add the images",
            ),
            "image_ambiguous": (
                "images that annotations name and several files match",
                _SKIPS_IMAGE,
                "write the path of the image, or remove the other files",
            ),
            "link_outside": (
                "links to files outside the data set that are not images",
                "the file is not read",
                "copy the file into the folder of the data set",
            ),
            "path_outside_folder": (
                "listed paths outside the data set",
                _SKIPS_IMAGE,
                "copy the file into the folder of the data set",
            ),
            "unknown_tag": (
                "tags that meta.json does not define",
                "the tag is skipped",
                "add the tag to meta.json",
            ),
            "image_rejected": (
                "images that the instance rejects",
                _SKIPS_IMAGE,
                "follow the message",
            ),
            "class_entry_malformed": (
                "class entries without id or name, or that repeat",
                "the entry is skipped",
                "give each class its own id and name",
            ),
            "annotation_malformed": (
                "malformed annotations",
                "the annotation is skipped; an unreadable annotation file also costs its image",
                "repair or remove it",
            ),
            "annotation_without_image": (
                "annotations without their image",
                "the annotation is skipped",
                "add the image, or remove the annotation",
            ),
            "unknown_class": (
                "annotations of an unknown class",
                "the annotation is skipped",
                "add the class to the class list of the training split, or correct its id",
            ),
            "objects_unusable": (
                "images without any usable object of those annotated",
                "the image is skipped: as background it would train the model to ignore them",
                "repair the annotations, or delete them if the image shows no object",
            ),
            "unknown_geometry": (
                "objects of an unsupported shape",
                _SKIPS_OBJECT,
                "in the app, enable the conversion of shapes; points have no box",
            ),
            "box_not_finite": ("boxes with NaN or infinity", _SKIPS_BOX, "draw the box again"),
            "box_null": ("boxes with null values", _SKIPS_BOX, "draw the box again"),
            "box_malformed": (
                "boxes that are not four numbers",
                _SKIPS_BOX,
                "write [x, y, width, height]",
            ),
            "box_zero_area": ("boxes without area", _SKIPS_BOX, "draw the box again"),
            "box_inverted": (
                "boxes with negative width or height",
                _SKIPS_BOX,
                "write [x, y, width, height], from the upper left corner",
            ),
            "box_outside": (
                "boxes outside their image",
                _SKIPS_BOX,
                "check that the boxes belong to this image",
            ),
            "left_out": (
                "images in no split",
                "the image is skipped",
                "assign it to a split, or leave it out on purpose",
            ),
        },
    ),
    **_kinds(
        Severity.WARNING,
        Action.CLIPS,
        {
            "box_out_of_bounds": (
                "boxes that extend beyond their image",
                "the part inside the image is used",
                "check that the boxes belong to this image",
            ),
        },
    ),
    **_kinds(
        Severity.WARNING,
        Action.USES,
        {
            "huge_image": (
                "very large images",
                "each epoch decodes them in full, which costs time and memory",
                "shrink the image, or cut it into tiles",
            ),
            "animated_image": ("animated images", "only the first frame", _SAVE_PART),
            "multi_page_image": ("files with several pages", "only the first page", _SAVE_PART),
            "few_levels": (
                "images with more than 8 bits that keep fewer than 32 gray levels",
                "details in them are invisible to the model",
                "set pixel_range to the values that matter, or leave the image out",
            ),
            "box_duplicate": (
                "duplicate boxes",
                "all of them, so the model learns to detect the object twice",
                "remove the copies",
            ),
            "object_vanishing": (
                "objects below one pixel at the training size",
                "but not in training images where they stay that small",
                "train at a larger size, or cut the images into tiles",
            ),
            "too_many_objects": (
                "images with more objects than queries",
                "objects beyond the number of queries are neither learned nor detected",
                "increase num_queries and num_top_queries, or cut the images into tiles",
            ),
            "class_without_objects": (
                "classes without objects",
                "the class cannot be learned or measured",
                "label objects of this class, or remove it",
            ),
            "class_names_similar": (
                "class names that differ only in case, spaces or Unicode form",
                "as different classes",
                "merge them if they mean the same",
            ),
            "listed_twice": (
                "files that are listed more than once",
                "as often as it is listed",
                "merge the entries: each holds only a part of the boxes",
            ),
            "split_overlap": ("images in both splits", _LEAKS, "keep each image in one split only"),
            "leak_identical": (
                "identical images in training and validation",
                _LEAKS,
                "keep each image in one split only",
            ),
            "leak_near": (
                "nearly identical images in training and validation",
                _LEAKS,
                "put images of one scene, or frames of one video, into one split",
            ),
        },
    ),
    **_kinds(
        Severity.NOTE,
        Action.SKIPS,
        {
            "box_crowd": (
                "crowd regions",
                "not trained on; detections inside count as neither right nor wrong",
                "draw single objects if the model should learn them",
            ),
            "class_left_out": (
                "classes without objects, of another split only, or of the labeling program",
                "the class is not learned",
                "label objects of this class if the model should learn it",
            ),
            "object_left_out": (
                "objects of classes added by the labeling program",
                _SKIPS_OBJECT,
                "rename the class if it is one of yours",
            ),
            "class_not_selected": (
                "objects of classes that are not selected",
                _SKIPS_OBJECT,
                "select the class if the model should learn it",
            ),
        },
    ),
    **_kinds(
        Severity.NOTE,
        Action.USES,
        {
            "size_missing": (
                "images whose annotations declare no size",
                "the boxes are applied to the image file as it is",
                "write width and height, so that a wrong image is detected",
            ),
            "wrong_extension": (
                "files whose extension does not match their format",
                "the content decides, not the name",
                "rename the file for other programs",
            ),
            "exif_rotated": (
                "images with an EXIF rotation",
                "they are rotated upright, unless the declared size is the stored one",
                "check that the boxes fit, as drawn here",
            ),
            "deep_image": (
                "images with more than 8 bits per channel",
                "scaled to 8 bits by the pixel range",
                _CHECK_CONVERSION,
            ),
            "float_image": (
                "floating-point images",
                "scaled to 8 bits by the pixel range",
                _CHECK_CONVERSION,
            ),
            "pixel_range": (
                "scaling of images with more than 8 bits",
                "these pixel values become 0 and 255 in all images",
                "set pixel_range if objects are too dark or too bright, as shown here",
            ),
            "cmyk_image": (
                "CMYK images",
                "converted to RGB without a color profile",
                "convert the image if its colors are wrong, as shown here",
            ),
            "outside_folder": (
                "images outside the folder of their split, by links",
                "the file is read in place; the report does not show it",
                "copy it into the folder before you move the data",
            ),
            "byte_order_mark": (
                "annotation files with a byte order mark",
                "the mark is ignored",
                "save as UTF-8 without BOM for other programs",
            ),
            "box_as_text": (
                "boxes with numbers written as strings",
                "the numbers are read",
                "write numbers for other programs",
            ),
            "object_tiny": (
                "objects that are tiny at the training size",
                "they are hard to learn",
                "train at a larger size, or cut the images into tiles",
            ),
            "class_rare": (
                "classes in fewer than a tenth of the images of the most frequent class",
                "seldom, so the class is learned late",
                "set balanced_paste to 0.5, or repeat_threshold to the value stated here, or label "
                "more of its objects",
            ),
            "above_coco_limit": (
                "validation images with more than 100 objects of a class",
                "AP counts all detections of a class in an image; COCO counts 100",
                "compare with other programs by AP_coco, which keeps COCO's limit",
            ),
            "image_without_objects": (
                "images without objects",
                "as background",
                "label them if they show objects",
            ),
            "class_name_odd": (
                "class names with quotes, slashes, extra spaces or non-ASCII characters",
                "the name is kept as it is",
                "rename the class if one of your programs cannot handle it",
            ),
            "same_name": (
                "images with the same name in several folders",
                "as different images",
                "check whether they show the same picture",
            ),
            "similar_names": (
                "images whose names differ only in case, Unicode form or extension",
                "as different images",
                "rename them: other systems treat them as one file",
            ),
            "duplicate_image": (
                "identical images in one split",
                "each of them",
                "remove the copies, especially if their boxes differ",
            ),
        },
    ),
}
