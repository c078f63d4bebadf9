"""Images: contents by hash, names, records, filters, downloads."""

import base64
import hashlib
from pathlib import Path

import httpx
import numpy as np
import pytest
import requests
import supervisely as sly
from PIL import Image

from tests.faulty_instance import Fault


def hash_of(data: bytes) -> str:
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


@pytest.fixture
def files(tmp_path, png):
    """Write images; equal numbers have equal contents."""

    def write(*numbers):
        paths = []
        for index, number in enumerate(numbers):
            path = tmp_path / f"{index}_{number}.png"
            path.write_bytes(png(number))
            paths.append(str(path))
        return paths

    return write


def test_record(api, project, dataset, files, png):
    path = files(7)[0]
    info = api.image.upload_path(dataset.id, "one.png", path, meta={"camera": "x"})
    assert info == api.image.get_info_by_id(info.id)
    assert (info.name, info.width, info.height, info.mime, info.ext) == (
        *("one.png", 30, 20, "image/png", "png"),
    )
    assert (info.hash, info.size) == (hash_of(png(7)), len(png(7)))
    assert (info.dataset_id, info.project_id, info.meta) == (
        *(dataset.id, project.id, {"camera": "x"}),
    )
    assert (info.labels_count, info.tags, info.link) == (0, [], None)


@pytest.mark.parametrize(
    ("format_", "mime", "suffix"),
    [("JPEG", "image/jpeg", ".jpg"), ("PNG", "image/png", ".png"), ("BMP", "image/bmp", ".bmp"),
     ("WEBP", "image/webp", ".webp"), ("TIFF", "image/tiff", ".tiff"),
     ("MPO", "image/jpeg", ".jpg")],
)  # fmt: skip
def test_formats_keep_their_extension(api, dataset, tmp_path, format_, mime, suffix):
    path = tmp_path / f"x{suffix}"
    Image.new("RGB", (40, 24)).save(path, format_)
    info = api.image.upload_path(dataset.id, f"{format_}{suffix}", str(path))
    assert (info.name, info.mime) == (f"{format_}{suffix}", mime)
    assert (info.width, info.height) == (40, 24)


def test_equal_contents_are_stored_once(api, instance, dataset, files, png):
    paths = files(50, 50, 51)
    infos = api.image.upload_paths(dataset.id, ["a.png", "b.png", "c.png"], paths)
    assert infos[0].hash == infos[1].hash != infos[2].hash
    assert infos[0].id != infos[1].id
    known = [hash_of(png(50)), hash_of(b"unknown"), hash_of(png(51))]
    assert api.image.check_existing_hashes(known) == [known[0], known[2]]
    stored = instance.store.blobs.path(known[0])
    assert stored.read_bytes() == png(50)
    again = api.image.upload_hash(dataset.id, "d.png", known[0])
    assert np.array_equal(api.image.download_np(again.id), np.full((20, 30, 3), 50))


def test_unknown_hash_and_link_are_rejected(api, dataset):
    with pytest.raises(requests.HTTPError, match="upload it first"):
        api.image.upload_hash(dataset.id, "d.png", hash_of(b"not stored"))
    with pytest.raises(requests.HTTPError, match="this instance has no linked images"):
        api.image.upload_link(dataset.id, "l.png", "https://example.org/x.png")


def test_unreadable_image_is_rejected(api, dataset, tmp_path):
    path = tmp_path / "broken.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    with pytest.raises(requests.HTTPError, match="0: cannot be read as an image"):
        api.image.upload_path(dataset.id, "broken.png", str(path))
    assert api.image.get_list(dataset.id) == []


def test_name_conflict_reports_the_existing_image(api, dataset, files):
    first = api.image.upload_paths(dataset.id, ["a.png", "b.png"], files(1, 2))
    with pytest.raises(requests.HTTPError) as caught:
        api.image.upload_paths(dataset.id, ["c.png", "b.png"], files(3, 4))
    details = caught.value.response.json()["details"]
    assert caught.value.response.status_code == 400
    assert details["type"] == "NONUNIQUE"
    assert details["errors"] == [{"id": first[1].id, "name": "b.png"}]
    assert [each.name for each in api.image.get_list(dataset.id)] == ["a.png", "b.png"]


@pytest.mark.parametrize("resolution", ["replace", "rename", "skip"])
def test_sdk_resolves_name_conflicts(api, dataset, files, resolution):
    first = api.image.upload_paths(dataset.id, ["a.png"], files(1))[0]
    infos = api.image.upload_paths(
        dataset.id, ["a.png", "n.png"], files(2, 3), conflict_resolution=resolution
    )
    names = sorted(each.name for each in api.image.get_list(dataset.id))
    assert len(infos) == 2
    if resolution == "rename":
        assert len(names) == 3
    else:
        assert names == ["a.png", "n.png"]
    kept = api.image.get_info_by_id(first.id)
    assert (kept is None) == (resolution == "replace")


def test_copies_share_contents(api, project, dataset, array):
    meta = api.project.update_meta(project.id, sly.ProjectMeta([sly.ObjClass("c", sly.Rectangle)]))
    image = api.image.upload_np(dataset.id, "a.png", array(60), meta={"k": 1})
    label = sly.Label(sly.Rectangle(1, 2, 3, 4), meta.get_obj_class("c"))
    api.annotation.upload_ann(image.id, sly.Annotation((20, 30), [label]))
    other = api.dataset.create(project.id, "other")
    copy = api.image.copy_batch(other.id, [image.id], with_annotations=True)[0]
    assert (copy.hash, copy.meta, copy.name) == (image.hash, {"k": 1}, "a.png")
    assert api.image.get_info_by_id(copy.id).labels_count == 1


def test_editing_and_removal(api, dataset, files):
    infos = api.image.upload_paths(dataset.id, ["a.png", "b.png"], files(1, 2))
    assert api.image.edit(infos[0].id, name="z.png").name == "z.png"
    api.image.update_meta(infos[0].id, {"new": True})
    assert api.image.get_info_by_id(infos[0].id).meta == {"new": True}
    with pytest.raises(requests.HTTPError, match="'b.png' already exists"):
        api.image.edit(infos[0].id, name="b.png")
    api.image.remove_batch([infos[1].id])
    assert [each.name for each in api.image.get_list(dataset.id)] == ["z.png"]
    assert api.image.get_info_by_id(infos[1].id) is None
    with pytest.raises(requests.HTTPError) as caught:
        api.image.download_np(infos[1].id)
    assert caught.value.response.status_code == 404


def test_lists_and_filters(api, project, dataset, files):
    meta = api.project.update_meta(
        project.id,
        sly.ProjectMeta(
            [sly.ObjClass("c", sly.Rectangle), sly.ObjClass("d", sly.Rectangle)],
            [sly.TagMeta("t", sly.TagValueType.NONE)],
        ),
    )
    nested = api.dataset.create(project.id, "nested", parent_id=dataset.id)
    a, b, c = api.image.upload_paths(dataset.id, ["a.png", "b.png", "x_c.png"], files(1, 2, 3))
    d = api.image.upload_paths(nested.id, ["d.png"], files(4))[0]
    label = sly.Label(sly.Rectangle(1, 1, 5, 5), meta.get_obj_class("c"))
    tag = meta.get_tag_meta("t")
    api.annotation.upload_ann(a.id, sly.Annotation((20, 30), [label, label]))
    api.annotation.upload_ann(b.id, sly.Annotation((20, 30), img_tags=[sly.Tag(tag)]))

    def ids(infos):
        return [each.id for each in infos]

    assert ids(api.image.get_list(dataset.id)) == [a.id, b.id, c.id]
    assert ids(api.image.get_list(project_id=project.id)) == [a.id, b.id, c.id, d.id]
    assert ids(api.image.get_list(dataset.id, recursive=True)) == [a.id, b.id, c.id, d.id]
    assert ids(api.image.get_list(dataset.id, sort="name", sort_order="desc")) == [
        *(c.id, b.id, a.id),
    ]
    assert ids(api.image.get_list(dataset.id, sort="labelsCount", sort_order="desc"))[0] == a.id
    assert api.image.get_info_by_name(dataset.id, "b.png").id == b.id
    assert ids(api.image.get_info_by_id_batch([c.id, a.id])) == [c.id, a.id]
    assert ids(api.image.get_list(dataset.id, only_labelled=True)) == [a.id]

    def filtered(type_, **data):
        filters = [{"type": type_, "data": data}]
        return ids(api.image.get_filtered_list(dataset.id, filters))

    assert filtered("images_filename", value="x_") == [c.id]
    assert filtered("images_tag", tagId=tag.sly_id, include=True) == [b.id]
    assert filtered("images_tag", tagId=tag.sly_id, include=False) == [a.id, c.id]
    c_id = meta.get_obj_class("c").sly_id
    assert filtered("objects_class", classId=c_id, **{"from": 2}, to=9, include=True) == [a.id]
    assert filtered("objects_class", classId=c_id, **{"from": 3}, to=9, include=True) == []
    with pytest.raises(requests.HTTPError, match="unknown filter type 'job'"):
        filtered("job", id=1)


def test_more_than_a_page(api, instance, dataset, png):
    from supervisely_integration.local.emulator.storage.images import NewImage

    hash_ = instance.store.images.store_contents(png(9), "x.png")
    names = [f"{number:04}.png" for number in range(1203)]
    instance.store.images.add(dataset.id, [NewImage(name, hash_) for name in names])
    infos = api.image.get_list(dataset.id)  # three pages of 500, by number
    assert [each.name for each in infos] == names
    assert len({each.id for each in infos}) == 1203
    descending = api.image.get_list(dataset.id, sort="name", sort_order="desc")
    assert [each.name for each in descending] == names[::-1]
    assert len(api.image.get_list(dataset.id, limit=700)) == 700
    for sort, order in (("id", "asc"), ("name", "desc")):
        batches = list(
            api.image.get_list_generator(dataset.id, sort=sort, sort_order=order, batch_size=500)
        )
        assert [len(batch) for batch in batches] == [500, 500, 203]
        found = [each.name for batch in batches for each in batch]
        assert found == (names if order == "asc" else names[::-1])


def test_page_token_survives_removals(api, instance, dataset, png):
    from supervisely_integration.local.emulator.storage.images import NewImage

    hash_ = instance.store.images.store_contents(png(9), "x.png")
    ids = instance.store.images.add(dataset.id, [NewImage(f"{i}.png", hash_) for i in range(6)])
    pages = api.image.get_list_generator(dataset.id, batch_size=2)
    assert [each.id for each in next(pages)] == ids[:2]
    instance.store.images.remove([ids[0]])
    assert [each.id for each in next(pages)] == ids[2:4]


def test_downloads(api, dataset, files, tmp_path, png):
    infos = api.image.upload_paths(dataset.id, ["a.png", "b.png", "c.png"], files(1, 2, 3))
    ids = [each.id for each in infos]
    targets = [str(tmp_path / f"out{i}.png") for i in range(3)]
    api.image.download_paths(dataset.id, ids, targets)
    for number, target in enumerate(targets, 1):
        assert Path(target).read_bytes() == png(number)
    assert [data[0, 0, 0] for data in api.image.download_nps(dataset.id, ids[::-1])] == [3, 2, 1]
    assert api.image.download_bytes(dataset.id, [ids[1]]) == [png(2)]


def test_async_download_checks_the_hash(api, instance, dataset, files, tmp_path, png):
    from supervisely._utils import run_coroutine

    infos = api.image.upload_paths(dataset.id, ["a.png", "b.png"], files(1, 2))
    targets = [str(tmp_path / "1"), str(tmp_path / "2")]
    run_coroutine(api.image.download_paths_async([each.id for each in infos], targets))
    for number, target in enumerate(targets, 1):
        assert Path(target).read_bytes() == png(number)
    instance.faults.replace([Fault("damage", "images.download")])
    with pytest.raises(RuntimeError, match="hash"):
        run_coroutine(api.image.download_path_async(infos[0].id, targets[0]))


def test_storage_url_sends_the_image(api, instance, dataset, files, png):
    info = api.image.upload_paths(dataset.id, ["a.png"], files(1))[0]
    assert info.full_storage_url == f"{instance.address}/image-storage/{info.id}"
    answer = httpx.get(info.full_storage_url, headers={"x-api-key": instance.token})
    assert (answer.content, answer.headers["content-type"]) == (png(1), "image/png")
    preview = api.project.get_info_by_id(info.project_id).reference_image_url
    assert preview == info.full_storage_url
