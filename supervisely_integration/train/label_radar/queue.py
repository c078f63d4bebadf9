"""A queue for annotators: images with probable annotation errors get tags and a collection."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path

import supervisely as sly
from supervisely.annotation.tag_meta import TagApplicableTo

logger = logging.getLogger(__name__)

COLLECTION = "label radar"
TAGS = {
    "missed": "radar: missed",
    "unsupported": "radar: no object",
    "wrong_class": "radar: wrong class",
    "loose_box": "radar: inaccurate box",
}
_MIN_PROBABILITY = 0.5
_MAX_IMAGES = 500  # the most probable ones; a longer queue is not worked off


def queue_images(
    api: sly.Api, project_id: int, image_ids: Mapping[str, int], suspicions: Path
) -> int:
    """Tag images with probable errors, and collect them; return the number of images.

    The tags and the collection of an earlier call are replaced. Annotations are not changed.

    Args:
        api: of the instance.
        project_id: of the images.
        image_ids: of all images of the project by name, "data set/image".
        suspicions: `label_radar.json`, with these names.
    """
    content = json.loads(suspicions.read_text(encoding="utf-8"))
    tagged: dict[str, list[int]] = {kind: [] for kind in TAGS}
    chosen: dict[int, None] = {}
    for each in content["suspicions"]:  # most probable first
        id_ = image_ids.get(each["file_name"])
        is_room = id_ in chosen or len(chosen) < _MAX_IMAGES
        if id_ is None or each["probability"] < _MIN_PROBABILITY or not is_room:
            continue
        chosen[id_] = None
        if id_ not in tagged[each["kind"]]:
            tagged[each["kind"]].append(id_)
    _replace_tags(api, project_id, list(image_ids.values()), tagged)
    _replace_collection(api, project_id, list(chosen))
    logger.info("Label radar: images with probable errors in %r: %d", COLLECTION, len(chosen))
    return len(chosen)


def _replace_tags(
    api: sly.Api, project_id: int, image_ids: list[int], tagged: Mapping[str, list[int]]
) -> None:
    meta = sly.ProjectMeta.from_json(api.project.get_meta(project_id))
    old = [meta.get_tag_meta(name) for name in TAGS.values()]
    if any(old):
        ids = [each.sly_id for each in old if each is not None]
        api.advanced.remove_tags_from_images(ids, image_ids)
    missing = [
        sly.TagMeta(name, sly.TagValueType.NONE, applicable_to=TagApplicableTo.IMAGES_ONLY)
        for name, each in zip(TAGS.values(), old, strict=True)
        if each is None
    ]
    if missing and any(tagged.values()):
        api.project.update_meta(project_id, meta.add_tag_metas(missing))
        meta = sly.ProjectMeta.from_json(api.project.get_meta(project_id))
    for kind, ids in tagged.items():
        if ids:
            api.image.add_tag_batch(ids, meta.get_tag_meta(TAGS[kind]).sly_id)


def _replace_collection(api: sly.Api, project_id: int, image_ids: list[int]) -> None:
    for each in api.entities_collection.get_list(project_id):
        if each.name == COLLECTION:
            api.entities_collection.remove(each.id, force=True)
    if image_ids:
        description = "Images with probable annotation errors, found by the label radar"
        collection = api.entities_collection.create(project_id, COLLECTION, description)
        api.entities_collection.add_items(collection.id, image_ids)
