"""Images with probable annotation errors get tags and a collection; a second call replaces them."""

import json

import pytest
import supervisely as sly

from supervisely_integration.train.label_radar.queue import COLLECTION, queue_images


@pytest.fixture
def images(api, dataset, array):
    names = ["a.png", "b.png", "c.png", "d.png"]
    return api.image.upload_nps(dataset.id, names, [array(i) for i in range(4)])


def tags_of(api, project, images):
    meta = sly.ProjectMeta.from_json(api.project.get_meta(project.id))
    infos = [api.annotation.download(image.id).annotation for image in images]
    found = [sorted(tag["name"] for tag in info["tags"]) for info in infos]
    assert all(meta.get_tag_meta(name) is not None for names in found for name in names)
    return found


def collected(api, project):
    return {
        each.name: [
            item.id for item in api.entities_collection.get_items(each.id, "default", project.id)
        ]
        for each in api.entities_collection.get_list(project.id)
    }


def test_queue_is_created_and_replaced(api, project, dataset, images, tmp_path):
    a, b, c, d = images
    own = api.project.update_meta(
        project.id,
        sly.ProjectMeta.from_json(api.project.get_meta(project.id)).add_tag_meta(
            sly.TagMeta("mine", sly.TagValueType.NONE)
        ),
    ).get_tag_meta("mine")
    api.image.add_tag_batch([a.id, d.id], own.sly_id)
    api.entities_collection.create(project.id, "other")
    ids = {f"{dataset.name}/{image.name}": image.id for image in images}
    path = tmp_path / "label_radar.json"

    def queue(*rows):
        suspicions = [
            {"kind": kind, "probability": p, "file_name": f"{dataset.name}/{name}.png"}
            for name, kind, p in rows
        ]
        path.write_text(json.dumps({"suspicions": suspicions}))
        return queue_images(api, project.id, ids, path)

    rows = [("b", "missed", 0.9), ("b", "missed", 0.8), ("b", "wrong_class", 0.7)]
    rows += [("a", "loose_box", 0.6), ("c", "missed", 0.4), ("unknown", "missed", 0.9)]
    assert queue(*rows) == 2
    assert tags_of(api, project, images) == [
        ["mine", "radar: inaccurate box"],
        ["radar: missed", "radar: wrong class"],
        [],
        ["mine"],
    ]
    assert collected(api, project) == {"other": [], COLLECTION: [a.id, b.id]}

    assert queue(("c", "unsupported", 0.5)) == 1
    assert tags_of(api, project, images) == [["mine"], [], ["radar: no object"], ["mine"]]
    assert collected(api, project) == {"other": [], COLLECTION: [c.id]}

    assert queue() == 0
    assert tags_of(api, project, images) == [["mine"], [], [], ["mine"]]
    assert collected(api, project) == {"other": []}
