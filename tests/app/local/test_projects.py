"""Projects: records, names, meta, statistics, versions, removal."""

import time
from unittest.mock import Mock

import pytest
import requests
import supervisely as sly

from supervisely_integration.local.emulator.storage.sql.errors import ConflictError


def meta_of(api, project_id):
    return sly.ProjectMeta.from_json(api.project.get_meta(project_id))


def test_new_project(api, project):
    info = api.project.get_info_by_id(project.id)
    assert info == project
    assert (info.type, info.items_count, info.images_count, info.datasets_count) == (
        *("images", 0, 0, 0),
    )
    assert (info.team_id, info.workspace_id, info.settings, info.custom_data) == (1, 1, {}, {})
    assert isinstance(info.reference_image_url, str)  # compress_image_url(None) fails
    assert isinstance(info.image_preview_url, str)
    assert api.project.get_meta(project.id) == {
        "classes": [],
        "tags": [],
        "projectType": "images",
    }


def test_create_with_fields(api):
    made = api.project.create(
        1, "with fields", description="d", readme="r", settings={"a": 1}, custom_data={"b": [2]}
    )
    info = api.project.get_info_by_id(made.id)
    assert (info.description, info.readme, info.settings, info.custom_data) == (
        *("d", "r", {"a": 1}, {"b": [2]}),
    )


def test_name_conflict(api):
    first = api.project.create(1, "taken")
    with pytest.raises(requests.HTTPError) as caught:
        api.project.create(1, "taken")
    details = caught.value.response.json()["details"]
    assert caught.value.response.status_code == 400
    assert details["type"] == "NONUNIQUE"
    assert details["errors"] == [{"id": first.id, "name": "taken"}]
    assert "use another name" in details["message"]
    assert api.project.create(1, "taken", change_name_if_conflict=True).name == "taken_001"
    api.project.remove(first.id)
    assert api.project.get_info_by_id(first.id) is None
    assert api.project.create(1, "taken").id != first.id


def test_other_project_types_are_rejected(api):
    with pytest.raises(requests.HTTPError, match="has projects of images only"):
        api.project.create(1, "video", type=sly.ProjectType.VIDEOS)


def test_lists_and_names(api, project):
    assert api.project.get_info_by_name(1, project.name).id == project.id
    assert api.project.get_info_by_name(1, "no such") is None
    assert project.id in [each.id for each in api.project.get_list(1)]
    assert project.id in [each.id for each in api.project.get_list(team_id=1)]
    named = api.project.get_list(
        1, filters=[{"field": "id", "operator": "in", "value": [project.id]}]
    )
    assert [each.id for each in named] == [project.id]


def test_update_project(api, project):
    assert api.project.edit_info(project.id, name="new name", readme="text").name == "new name"
    assert api.project.get_info_by_id(project.id).readme == "text"
    api.project.update_settings(project.id, {"x": 1})
    api.project.update_settings(project.id, {"y": 2})
    assert api.project.get_settings(project.id) == {"x": 1, "y": 2}


def test_updated_at_follows_the_contents(api, project, png):
    def updated_at():
        return api.project.get_info_by_id(project.id).updated_at

    times = [updated_at()]
    api.project.update_custom_data(project.id, {"train_info": {"a": 1}}, silent=True)
    assert updated_at() == times[0]
    assert api.project.get_custom_data(project.id) == {"train_info": {"a": 1}}
    dataset = api.dataset.create(project.id, "ds")
    times.append(updated_at())
    image = api.image.upload_np(dataset.id, "a.png", sly.image.read_bytes(png(1)))
    times.append(updated_at())
    api.project.update_meta(project.id, sly.ProjectMeta([sly.ObjClass("c", sly.Rectangle)]))
    times.append(updated_at())
    api.annotation.upload_ann(image.id, sly.Annotation((20, 30)))
    times.append(updated_at())
    api.image.remove(image.id)
    times.append(updated_at())
    api.project.update_custom_data(project.id, {})
    times.append(updated_at())
    assert times == sorted(set(times))


def test_meta_items_keep_their_ids(api, project):
    meta = sly.ProjectMeta(
        [sly.ObjClass("cat", sly.Rectangle), sly.ObjClass("dog", sly.Polygon)],
        [
            sly.TagMeta("train", sly.TagValueType.NONE),
            sly.TagMeta("kind", sly.TagValueType.ONEOF_STRING, possible_values=["a", "b"]),
        ],
    )
    first = api.project.update_meta(project.id, meta)
    ids = {each.name: each.sly_id for each in [*first.obj_classes, *first.tag_metas]}
    assert len(set(ids.values())) == 4
    assert first == meta_of(api, project.id)
    assert first.tag_metas.get("kind").possible_values == ["a", "b"]
    second = api.project.update_meta(
        project.id, first.add_obj_class(sly.ObjClass("cow", sly.Bitmap))
    )
    assert {each.name: each.sly_id for each in second.obj_classes if each.name != "cow"} == {
        "cat": ids["cat"],
        "dog": ids["dog"],
    }
    assert second.get_obj_class("cow").sly_id not in ids.values()


def test_renamed_class_keeps_its_figures(api, project, dataset, array):
    meta = api.project.update_meta(
        project.id,
        sly.ProjectMeta([sly.ObjClass("a", sly.Rectangle), sly.ObjClass("b", sly.Rectangle)]),
    )
    image = api.image.upload_np(dataset.id, "a.png", array(1))
    labels = [sly.Label(sly.Rectangle(1, 1, 5, 5), meta.get_obj_class(name)) for name in "ab"]
    api.annotation.upload_ann(image.id, sly.Annotation((20, 30), labels))
    changed = api.project.get_meta(project.id)
    changed["classes"] = [{**changed["classes"][0], "title": "renamed"}]
    api.project.update_meta(project.id, changed)
    objects = api.annotation.download_json(image.id)["objects"]
    assert [each["classTitle"] for each in objects] == ["renamed"]
    api.project.update_meta(project.id, {**changed, "classes": []})
    assert api.annotation.download_json(image.id)["objects"] == []


def test_repeated_class_name_is_rejected(api, instance, project):
    twice = [{"title": "a", "shape": "rectangle"}] * 2
    with pytest.raises(requests.HTTPError, match="'a' repeats; use unique names"):
        api.post("projects.meta.update", {"id": project.id, "meta": {"classes": twice}})


def test_meta_of_another_project_gets_new_ids(api, project):
    other = api.project.create(1, "source of meta", change_name_if_conflict=True)
    source = api.project.update_meta(
        other.id, sly.ProjectMeta([sly.ObjClass("x", sly.Point), sly.ObjClass("y", sly.Point)])
    )
    copy = api.project.update_meta(project.id, source)
    assert [each.name for each in copy.obj_classes] == ["x", "y"]
    assert not {c.sly_id for c in copy.obj_classes} & {c.sly_id for c in source.obj_classes}


def test_statistics(api, project, array):
    meta = api.project.update_meta(
        project.id,
        sly.ProjectMeta(
            [sly.ObjClass(name, sly.Rectangle) for name in ("a", "b", "unused")],
            [sly.TagMeta("t", sly.TagValueType.NONE), sly.TagMeta("u", sly.TagValueType.NONE)],
        ),
    )
    one, two = (api.dataset.create(project.id, name) for name in ("one", "two"))
    images = api.image.upload_nps(one.id, ["1.png", "2.png"], [array(1), array(2)])
    images += api.image.upload_nps(two.id, ["3.png"], [array(3)])
    tag, box = sly.Tag(meta.get_tag_meta("t")), sly.Rectangle(1, 1, 5, 5)
    a, b = meta.get_obj_class("a"), meta.get_obj_class("b")
    api.annotation.upload_ann(
        images[0].id,
        sly.Annotation((20, 30), [sly.Label(box, a), sly.Label(box, a, tags=[tag])], [tag]),
    )
    api.annotation.upload_ann(
        images[2].id, sly.Annotation((20, 30), [sly.Label(box, a), sly.Label(box, b)])
    )
    stats = api.project.get_stats(project.id)

    def counts(items, key):
        return {
            each[key]["name"]: (each["total"], {d["id"]: d["count"] for d in each["datasets"]})
            for each in items
        }

    assert counts(stats["objects"]["items"], "objectClass") == {
        "a": (3, {one.id: 2, two.id: 1}),
        "b": (1, {one.id: 0, two.id: 1}),
        "unused": (0, {one.id: 0, two.id: 0}),
    }
    assert counts(stats["images"]["objectClasses"], "objectClass") == {
        "a": (2, {one.id: 1, two.id: 1}),
        "b": (1, {one.id: 0, two.id: 1}),
        "unused": (0, {one.id: 0, two.id: 0}),
    }
    assert counts(stats["imageTags"]["items"], "tagMeta") == {
        "t": (1, {one.id: 1, two.id: 0}),
        "u": (0, {one.id: 0, two.id: 0}),
    }
    assert counts(stats["objectTags"]["items"], "tagMeta")["t"] == (1, {one.id: 1, two.id: 0})
    assert stats["images"]["total"] == {
        "imagesInDataset": 3,
        "imagesMarked": 2,
        "imagesNotMarked": 1,
    }


def test_removal_with_a_backup_is_rejected(api, project, dataset):
    with pytest.raises(requests.HTTPError, match="this instance has no project backups"):
        api.project.archive(project.id, "https://backup.example/")
    assert api.dataset.get_info_by_id(dataset.id) is not None


@pytest.mark.parametrize("kind", ["project", "dataset"])
def test_permanent_removal(api, project, kind):
    module, parent = getattr(api, kind), 1 if kind == "project" else project.id

    def make(count):
        return [
            module.create(parent, f"gone {i}", change_name_if_conflict=True).id
            for i in range(count)
        ]

    answers = module.remove_permanently(make(1)[0], batch_size=60)
    assert answers == [{"success": True}]
    progress = Mock()
    assert len(module.remove_permanently(make(5), progress_cb=progress)) == 1
    progress.assert_called_with(5)
    ids = make(3)
    assert len(module.remove_permanently(ids, 1)) == 3
    assert [module.get_info_by_id(id_) for id_ in ids] == [None] * 3


def test_versions(api, instance, project, dataset, array):
    api.image.upload_np(dataset.id, "a.png", array(1))
    versions = api.project.version
    first = versions.create(project.id, "title", "text")
    assert versions.create(project.id) == first  # nothing has changed
    assert api.project.get_info_by_id(project.id).version == {"id": first, "version": 1}
    api.image.upload_np(dataset.id, "b.png", array(2))
    time.sleep(1)  # the SDK names the archives after the second
    second = versions.create(project.id)
    assert [(v.id, v.version, v.name) for v in versions.get_list(project.id)] == [
        (first, 1, "title"),
        (second, 2, ""),
    ]
    stored = api.file.get_info_by_id(versions.get_info_by_number(project.id, 2).team_file_id)
    assert stored.path.startswith(f"/system/versions/{project.id}/")
    restored = versions.restore(project.id, version_num=1)
    assert restored.name == f"{project.name}, from ver. 1"
    assert [image.name for image in api.image.get_list(project_id=restored.id)] == ["a.png"]


def test_one_reservation_at_a_time(api, project):
    versions = api.project.version
    id_, token = versions.reserve(project.id)
    with pytest.raises(requests.HTTPError, match="is already committing a version"):
        api.post("projects.versions.reserve", {"projectId": project.id})
    with pytest.raises(requests.HTTPError, match="not reserved with this token"):
        versions.cancel_reservation(id_, "wrong")
    assert versions.cancel_reservation(id_, token)
    id_, token = versions.reserve(project.id)
    versions.commit(id_, token, project.updated_at, None)
    assert versions.reserve(project.id) == (None, None)
    with pytest.raises(requests.HTTPError, match="not reserved with this token"):
        versions.commit(id_, token, project.updated_at, None)


def test_reservation_of_a_killed_task_does_not_block_its_restart(api, instance, project):
    versions, tasks = instance.store.versions, instance.store.tasks
    first, second = (tasks.create(app={"id": 1, "name": "Train"}) for _ in range(2))
    tasks.set_status(first, "started")
    api.headers["x-task-id"] = str(first)
    killed, token = api.project.version.reserve(project.id)
    for other in (str(second), "", "1%"):
        with pytest.raises(ConflictError, match="is already committing a version"):
            versions.reserve(project.id, other)
    restarted, _ = api.project.version.reserve(project.id)
    assert restarted != killed
    with pytest.raises(requests.HTTPError, match="not reserved with this token"):
        api.project.version.cancel_reservation(killed, token)
    tasks.set_status(first, "error")
    assert versions.reserve(project.id, str(second))["id"] != restarted


def test_stale_reservation_expires(api, instance, project):
    id_, _ = api.project.version.reserve(project.id)
    instance.store.database.update("versions", id_, created_at="2020-01-01T00:00:00.000Z")
    assert api.project.version.reserve(project.id)[0] != id_
