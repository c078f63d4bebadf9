"""Annotations: upload and download of every geometry."""

import numpy as np
import pytest
import requests
import supervisely as sly
from starlette.testclient import TestClient
from supervisely.geometry.cuboid_2d import Cuboid2d
from supervisely.geometry.graph import GraphNodes, KeypointsTemplate, Node
from supervisely.geometry.oriented_bbox import OrientedBBox

from supervisely_integration.local.emulator.server import create_app
from supervisely_integration.local.emulator.store import Store

SIZE = (20, 30)
# Ids, and fields that the instance adds.
ADDED = {"id", "tagId", "classId", "createdAt", "updatedAt", "labelerLogin", "instance"}


def points(*pairs):
    return [sly.PointLocation(row, col) for row, col in pairs]


def template():
    graph = KeypointsTemplate()
    graph.add_point("a", 1, 2)
    graph.add_point("b", 5, 6)
    graph.add_edge("a", "b")
    return graph


SHAPES = {
    "rectangle": sly.Rectangle(1, 2, 10, 12),
    "polygon": sly.Polygon(points((1, 1), (1, 15), (15, 15)), [points((3, 5), (3, 9), (6, 9))]),
    "line": sly.Polyline(points((1, 1), (5, 9), (7, 2))),
    "point": sly.Point(3, 4),
    "bitmap": sly.Bitmap(np.eye(5, dtype=bool), sly.PointLocation(2, 2)),
    "alpha_mask": sly.AlphaMask(np.full((4, 4), 128, np.uint8), sly.PointLocation(3, 3)),
    "graph": GraphNodes({"a": Node(sly.PointLocation(1, 2)), "b": Node(sly.PointLocation(5, 6))}),
    "cuboid_2d": Cuboid2d(
        {
            name: Node(sly.PointLocation(row, col))
            for name, row, col in [
                *(("face1-topleft", 1, 1), ("face1-topright", 1, 9)),
                *(("face1-bottomleft", 9, 1), ("face1-bottomright", 9, 9)),
                *(("face2-topleft", 3, 3), ("face2-topright", 3, 12)),
                *(("face2-bottomleft", 12, 3), ("face2-bottomright", 12, 12)),
            ]
        }
    ),
    "oriented_bbox": OrientedBBox(2, 3, 10, 14, angle=0.5),
}


def plain(value):
    """JSON without the fields that the instance adds."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items() if key not in ADDED}
    return [plain(each) for each in value] if isinstance(value, list) else value


def object_class(name, shape):
    config = template() if name == "graph" else None
    return sly.ObjClass(name, type(shape), geometry_config=config)


@pytest.fixture
def meta(api, project):
    return api.project.update_meta(
        project.id,
        sly.ProjectMeta(
            [object_class(*each) for each in SHAPES.items()]
            + [sly.ObjClass("any", sly.AnyGeometry)],
            [
                sly.TagMeta("none", sly.TagValueType.NONE),
                sly.TagMeta("text", sly.TagValueType.ANY_STRING),
                sly.TagMeta("number", sly.TagValueType.ANY_NUMBER),
            ],
        ),
    )


@pytest.fixture
def tags(meta):
    return [
        sly.Tag(meta.get_tag_meta("none")),
        sly.Tag(meta.get_tag_meta("text"), 'höhe "5" <b>'),
        sly.Tag(meta.get_tag_meta("number"), 2.5),
    ]


@pytest.fixture
def image(api, dataset, array):
    return api.image.upload_np(dataset.id, "a.png", array(1))


def download(api, image, meta):
    return sly.Annotation.from_json(api.annotation.download_json(image.id), meta)


@pytest.mark.parametrize(
    ("name", "class_name"),
    [(name, name) for name in SHAPES]
    # The SDK reads the template of these two from their class.
    + [(name, "any") for name in SHAPES if name not in ("graph", "cuboid_2d")],
)
def test_round_trip_keeps_the_annotation(api, image, meta, tags, name, class_name):
    class_ = meta.get_obj_class(class_name)
    sent = sly.Annotation(
        SIZE,
        [
            sly.Label(SHAPES[name], class_, tags, description="of the object"),
            sly.Label(SHAPES[name], class_),
        ],
        tags,
        img_description="of the image",
    )
    api.annotation.upload_ann(image.id, sent)
    assert plain(download(api, image, meta).to_json()) == plain(sent.to_json())


def test_every_download_returns_all_geometries(api, dataset, image, meta, tags):
    from supervisely._utils import run_coroutine

    labels = [sly.Label(shape, meta.get_obj_class(name)) for name, shape in SHAPES.items()]
    sent = sly.Annotation(SIZE, labels, tags)
    api.annotation.upload_ann(image.id, sent)
    expected = {each["classTitle"]: each for each in plain(sent.to_json())["objects"]}
    ways = [
        api.annotation.download(image.id),
        api.annotation.download_batch(dataset.id, [image.id])[0],
        run_coroutine(api.annotation.download_bulk_async(dataset.id, [image.id]))[0],
        run_coroutine(api.annotation.download_async(image.id)),
    ]
    for info in ways:
        got = plain(sly.Annotation.from_json(info.annotation, meta).to_json())
        assert {each["classTitle"]: each for each in got["objects"]} == expected
        assert (info.image_id, info.image_name) == (image.id, "a.png")


def test_upload_replaces_the_annotation(api, image, meta, tags):
    label = sly.Label(SHAPES["rectangle"], meta.get_obj_class("rectangle"))
    api.annotation.upload_ann(image.id, sly.Annotation(SIZE, [label, label], tags))
    assert api.image.get_info_by_id(image.id).labels_count == 2
    assert len(api.image.get_info_by_id(image.id).tags) == 3
    api.annotation.upload_ann(image.id, sly.Annotation(SIZE, [label]))
    assert api.image.get_info_by_id(image.id).labels_count == 1
    assert api.image.get_info_by_id(image.id).tags == []


def test_record_has_ids_and_names(api, image, meta, tags):
    class_ = meta.get_obj_class("rectangle")
    label = sly.Label(SHAPES["rectangle"], class_, tags[1:2])
    api.annotation.upload_ann(image.id, sly.Annotation(SIZE, [label], tags[:1]))
    annotation = api.annotation.download_json(image.id)
    assert annotation["size"] == {"height": 20, "width": 30}
    (object_,) = annotation["objects"]
    assert (object_["classId"], object_["classTitle"]) == (class_.sly_id, "rectangle")
    assert isinstance(object_["id"], int)
    assert object_["tags"][0]["tagId"] == meta.get_tag_meta("text").sly_id
    assert annotation["tags"][0]["name"] == "none"
    assert annotation["tags"][0]["value"] is None


def test_batch_of_more_images_than_one_request(api, dataset, meta, array):
    names = [f"{i}.png" for i in range(60)]
    images = api.image.upload_nps(dataset.id, names, [array(i) for i in range(60)])
    class_ = meta.get_obj_class("point")
    annotations = [
        sly.Annotation(SIZE, [sly.Label(sly.Point(i % 20, 3), class_)]) for i in range(60)
    ]
    api.annotation.upload_anns([each.id for each in images], annotations)
    infos = api.annotation.download_batch(dataset.id, [each.id for each in images[::-1]])
    assert [info.image_id for info in infos] == [each.id for each in images[::-1]]
    rows = [info.annotation["objects"][0]["points"]["exterior"][0][1] for info in infos]
    assert rows == [i % 20 for i in range(60)][::-1]
    assert len(api.annotation.get_list(dataset.id)) == 60


def test_unknown_class_or_tag_changes_nothing(api, image, meta, tags):
    label = sly.Label(SHAPES["point"], meta.get_obj_class("point"))
    before = sly.Annotation(SIZE, [label], tags)
    api.annotation.upload_ann(image.id, before)
    foreign = sly.Label(SHAPES["point"], sly.ObjClass("foreign", sly.Point))
    tag = sly.Tag(sly.TagMeta("strange", sly.TagValueType.NONE))
    for wrong, message in [
        (sly.Annotation(SIZE, [label, foreign]), "the project has no class 'foreign'"),
        (sly.Annotation(SIZE, [label], [tag]), "the project has no tag 'strange'"),
    ]:
        json_ = wrong.to_json()
        with pytest.raises(requests.HTTPError, match=message):
            api.post(
                "annotations.bulk.add",
                {"annotations": [{"imageId": image.id, "annotation": json_}]},
            )
        assert plain(download(api, image, meta).to_json()) == plain(before.to_json())


def test_classes_are_matched_by_name(api, image, meta):
    other = api.project.create(1, "other classes", change_name_if_conflict=True)
    theirs = api.project.update_meta(other.id, meta)
    label = sly.Label(SHAPES["line"], theirs.get_obj_class("line"))
    api.annotation.upload_ann(image.id, sly.Annotation(SIZE, [label]))
    (object_,) = api.annotation.download_json(image.id)["objects"]
    assert object_["classId"] == meta.get_obj_class("line").sly_id


def test_figures_are_listed_and_updated(api, dataset, image, meta, tags):
    labels = [
        sly.Label(SHAPES["rectangle"], meta.get_obj_class("rectangle"), tags[:1]),
        sly.Label(SHAPES["polygon"], meta.get_obj_class("polygon")),
    ]
    api.annotation.upload_ann(image.id, sly.Annotation(SIZE, labels))
    box, polygon = api.image.figure.download(dataset.id, [image.id])[image.id]
    assert (box.geometry_type, box.class_id, box.entity_id) == (
        *("rectangle", meta.get_obj_class("rectangle").sly_id, image.id),
    )
    # Edges, not pixels: the SDK adds one to right and bottom on upload.
    assert box.geometry["points"]["exterior"] == [[2, 1], [13, 11]]
    assert [tag["tagId"] for tag in box.tags] == [tags[0].meta.sly_id]
    without = api.image.figure.download(dataset.id, [image.id], skip_geometry=True)[image.id]
    assert [each.geometry for each in without] == [None, None]
    assert api.image.figure.get_info_by_id(polygon.id).geometry == polygon.geometry
    assert [f.id for f in api.image.figure.get_by_ids(dataset.id, [polygon.id])] == [polygon.id]
    api.image.figure.remove_batch([box.id])
    fast = api.image.figure.download_fast(dataset.id, [image.id], log_progress=False)
    assert [each.id for each in fast[image.id]] == [polygon.id]


def test_subpixel_coordinates_are_kept(api, dataset, image, meta):
    geometry = {"points": {"exterior": [[1.25, 2.75], [10.6, 12.4]], "interior": []}}
    figure = {
        **{"entityId": image.id, "classId": meta.get_obj_class("rectangle").sly_id},
        **{"geometryType": "rectangle", "geometry": geometry},
    }
    (id_,) = api.image.figure.create_bulk([figure], dataset_id=dataset.id)
    for integer_coords in (False, True):
        figures = api.image.figure.download(dataset.id, integer_coords=integer_coords)[image.id]
        assert [(each.id, each.geometry) for each in figures] == [(id_, geometry)]


def test_fast_upload(api, dataset, image, meta, tags):
    labels = [
        sly.Label(SHAPES[name], meta.get_obj_class(name), tags)
        for name in ("polygon", "bitmap", "alpha_mask", "line")
    ]
    sent = sly.Annotation(SIZE, labels, tags)
    api.annotation.upload_anns_fast([image.id], [sent], log_progress=False)
    got = plain(download(api, image, meta).to_json())
    by_class = {each["classTitle"]: each for each in got["objects"]}
    assert by_class == {each["classTitle"]: each for each in plain(sent.to_json())["objects"]}
    assert sorted(tag["name"] for tag in got["tags"]) == ["none", "number", "text"]


def test_tags_of_images_and_figures(api, project, dataset, image, meta):
    tag = meta.get_tag_meta("text")
    api.image.add_tag_batch([image.id], tag.sly_id, value="v", tag_meta=tag)
    (stored,) = api.image.get_info_by_id(image.id).tags
    assert (stored["tagId"], stored["value"]) == (tag.sly_id, "v")
    label = sly.Label(SHAPES["point"], meta.get_obj_class("point"))
    api.annotation.upload_ann(image.id, sly.Annotation(SIZE, [label]))
    (figure,) = api.image.figure.download(dataset.id)[image.id]
    added = api.image.tag.add_to_objects(
        project.id, [{"tagId": tag.sly_id, "figureId": figure.id, "value": "w"}]
    )
    assert isinstance(added[0]["id"], int)
    (object_,) = api.annotation.download_json(image.id)["objects"]
    assert [(each["name"], each["value"]) for each in object_["tags"]] == [("text", "w")]


def test_lists_of_classes_and_tags(api, project, meta):
    classes = api.object_class.get_list(project.id)
    assert [each.name for each in classes] == [*SHAPES, "any"]
    assert api.object_class.get_name_to_id_map(project.id)["line"] == (
        meta.get_obj_class("line").sly_id
    )
    assert [each.name for each in api.image.tag.get_list(project.id)] == ["none", "text", "number"]


def test_deeply_nested_geometry_is_an_error_of_the_client(tmp_path):
    client = TestClient(create_app(Store(tmp_path), "token"), raise_server_exceptions=False)
    answer = client.post(
        "/public/api/v3/figures.bulk.upload.geometry",
        headers={"x-api-key": "token"},
        files=[("figureId", (None, "1")), ("geometry", ("1", b"[" * 100_000))],
    )
    assert answer.status_code == 400
