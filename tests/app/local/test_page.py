"""The page's API; tests/browser tests the page itself."""

import base64
import io
import zlib

import httpx
import pytest
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from supervisely_integration.local.emulator.store import Store
from supervisely_integration.local.instance import LocalInstance
from supervisely_integration.local.page.outlines import outlines
from supervisely_integration.local.page.scalars import best_metrics, curves_of, read_scalars
from tests.browser.instance_data import (
    EVIL,
    SIZE,
    event_file,
    fill_project,
    put_experiment,
    start_task,
)


@pytest.fixture
def instance(tmp_path):
    with LocalInstance(tmp_path / "instance") as running:
        yield running


def get(instance, path, status=200):
    answer = httpx.get(f"{instance.address}/{path}", headers={"x-api-key": instance.token})
    assert answer.status_code == status, answer.text
    return answer


def test_page_loads_only_its_own_files(instance):
    for path in ("", "page/page.css", "page/page.js", "page/views.js"):
        answer = get(instance, path)
        assert "https://" not in answer.text
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert httpx.get(f"{instance.address}/{path}").status_code == 401
    for path in ("page/routes.py", "page/index.html", "page/..%2finstance.py"):
        get(instance, path, status=404)


def test_thumbnail_shows_the_current_annotation(instance):
    fill_project(instance.store, "cells", images=1)

    def picture():
        content = get(instance, "page/thumbnails/1").content
        return Image.open(io.BytesIO(content)).convert("RGB")

    def is_red(pixel):
        return (
            pixel[0] > 130 and pixel[1] < 90 and pixel[2] < 90
        )  # JPEG changes pixel values slightly

    image = picture()
    assert image.size == SIZE
    assert is_red(image.getpixel((20, 60)))
    assert is_red(image.getpixel((60, 60)))
    assert not is_red(image.getpixel((40, 60)))
    assert is_red(image.getpixel((125, 10)))  # the upper side of the polygon
    instance.store.annotations.set(1, {"objects": []})
    assert not is_red(picture().getpixel((20, 60)))


def test_unreadable_image_gets_a_placeholder(instance):
    fill_project(instance.store, "cells", images=1)
    path, _ = instance.store.images.contents(1)
    path.write_bytes(path.read_bytes()[:40])
    answer = get(instance, "page/thumbnails/1")
    assert answer.headers["content-type"] == "image/svg+xml"
    get(instance, "page/thumbnails/2", status=404)


def test_projects_and_datasets_by_path(instance):
    fill_project(instance.store, "cells", images=3)
    (project,) = get(instance, "page/api/projects").json()["projects"]
    assert (project["images"], project["datasets"], len(project["covers"])) == (3, 2, 3)
    found = get(instance, "page/api/projects/1").json()
    assert [(d["path"], d["images"]) for d in found["datasetList"]] == [
        ("train", 2),
        ("train/night", 1),
    ]
    assert [(c["title"], c["objects"], c["color"]) for c in found["classes"]] == [
        ("cell", 9, "#FF0000"),
        ("unused", 0, "#888888"),  # an invalid color is not inserted into a style
    ]
    assert len(get(instance, "page/api/projects/1/images?dataset=2").json()["images"]) == 1
    assert get(instance, "page/api/projects?page=-4").json()["total"] == 1
    get(instance, "page/api/projects/7", status=404)
    get(instance, "page/api/projects/7/images", status=404)
    get(instance, "page/api/images/99", status=404)


def test_collections_and_tags(instance):
    store = instance.store
    fill_project(store, "cells", images=3)
    assert get(instance, "page/api/projects/1").json()["collections"] == []
    first = get(instance, "page/api/live").json()["stamps"]["projects"]
    queue = store.collections.create(1, "queue", description="to correct")
    store.collections.create(1, "empty")
    store.collections.add_items(queue, [{"entityId": 3}, {"entityId": 1}])
    assert get(instance, "page/api/live").json()["stamps"]["projects"] != first
    assert get(instance, "page/api/projects/1").json()["collections"] == [
        {"id": 2, "name": "empty", "description": "", "images": 0},
        {"id": 1, "name": "queue", "description": "to correct", "images": 2},
    ]
    found = get(instance, f"page/api/projects/1/images?collection={queue}").json()
    assert (found["total"], [image["id"] for image in found["images"]]) == (2, [1, 3])
    assert found["images"][0]["tags"] == [EVIL]
    assert get(instance, "page/api/projects/1/images?collection=2").json()["total"] == 0
    both = get(instance, f"page/api/projects/1/images?collection={queue}&dataset=2").json()
    assert [image["id"] for image in both["images"]] == [3]


def test_stamps_change_with_projects_and_experiments(instance):
    def stamps():
        return get(instance, "page/api/live").json()["stamps"]

    first = stamps()
    fill_project(instance.store, "cells", images=1)
    second = stamps()
    put_experiment(instance.store)
    third = stamps()
    assert (first["projects"] == second["projects"], second["projects"] == third["projects"]) == (
        False,
        True,
    )
    assert first["experiments"] == second["experiments"] != third["experiments"]


def test_only_running_bars_are_returned(instance):
    task_id = start_task(instance.store, address="ftp://x")
    (task,) = get(instance, "page/api/live").json()["tasks"]
    assert [(b["message"], b["percent"], b["info"]) for b in task["bars"]] == [
        ("Epochs", 40, "40/100")
    ]
    assert (task["statusLine"], task["address"]) == ("Training is in progress...", None)
    instance.store.tasks.set_status(task_id, "finished")
    assert get(instance, "page/api/live").json()["tasks"][0]["bars"] == []


def test_experiment_outside_of_its_folder_is_ignored(instance):
    instance.store.files.put_path(1, "/secret/experiment_info.json", b"{}")
    assert get(instance, "page/api/experiments").json() == {"experiments": []}
    get(instance, "page/api/experiments/1", status=404)
    instance.store.files.put_path(1, "/experiments/flat/experiment_info.json", b"[]")
    (found,) = get(instance, "page/api/experiments").json()["experiments"]
    assert (found["isReadable"], found["metrics"], found["name"]) == (
        False,
        {},
        "experiment_info.json",
    )


def test_every_file_leads_to_its_experiment(instance):
    folder = "/experiments/1_cells/7_RT-DETRv2"
    put_experiment(instance.store, folder)
    instance.store.files.put_path(1, f"{folder}/visualization/report.lnk", b"")
    instance.store.files.put_path(1, "/experiments/2_none/8_RT-DETRv2/report.lnk", b"")
    (found,) = get(instance, "page/api/experiments").json()["experiments"]
    ids = {r["path"]: r["id"] for r in instance.store.files.entries(1, "/experiments")}
    inside = ids[f"{folder}/visualization/report.lnk"]
    for id_ in (found["id"], inside):
        assert get(instance, f"page/api/experiments/{id_}").json()["folder"] == folder
    outside = ids["/experiments/2_none/8_RT-DETRv2/report.lnk"]
    get(instance, f"page/api/experiments/{outside}", status=404)


@pytest.mark.parametrize("first", [0, 1])
def test_scalars_match_those_written_by_tensorboard(tmp_path, first):
    """Files of earlier versions count epochs from 0."""
    with SummaryWriter(str(tmp_path)) as writer:
        for epoch, ap in enumerate((0.25, 0.75, 0.5), first):
            writer.add_scalar("val/AP", ap, epoch)
            writer.add_scalar("val/AP75", ap / 2, epoch)
            writer.add_scalar("val/APs", float("nan"), epoch)
    scalars = read_scalars(sorted(tmp_path.iterdir()))
    assert scalars["val/AP"] == [(1, 0.25), (2, 0.75), (3, 0.5)]
    assert best_metrics(scalars) == {"AP": 0.75, "AP75": 0.375, "epoch": 2}
    assert curves_of(scalars) == {"val/AP": scalars["val/AP"]}


def test_damaged_and_long_event_files(tmp_path):
    (tmp_path / "cut").write_bytes(event_file({"train/loss": [3.0, 2.0, 1.0]}, cut=10))
    (tmp_path / "noise").write_bytes(b"\x05" + b"\0" * 11 + b"\xff" * 9)
    (tmp_path / "long").write_bytes(event_file({"val/loss": [1.0] * 2000}))
    paths = [tmp_path / name for name in ("cut", "noise", "long", "missing")]
    scalars = read_scalars(paths)
    assert scalars["train/loss"] == [(0, 3.0), (1, 2.0)]
    assert len(curves_of(scalars)["val/loss"]) == 400
    assert best_metrics(scalars) == {}


def mask(size):
    buffer = io.BytesIO()
    Image.new("L", size, 255).save(buffer, "PNG")
    return base64.b64encode(zlib.compress(buffer.getvalue())).decode()


@pytest.mark.parametrize(
    ("figure", "expected"),
    [
        ({"geometryType": "rectangle", "points": {"exterior": [[5, 6], [1, 2]]}}, "box 1 2 5 6"),
        ({"geometryType": "line", "points": {"exterior": [[1, 2], [3, 4]]}}, "line 1 2 3 4"),
        ({"geometryType": "point", "points": {"exterior": [[1, 2]]}}, "point 1 2"),
        (
            {"geometryType": "bitmap", "bitmap": {"data": mask((7, 3)), "origin": [10, 20]}},
            "box 10 20 17 23",
        ),
        ({"geometryType": "graph", "nodes": {"a": {"loc": [1, 2]}}}, "point 1 2"),
        (
            {"geometryType": "multipolygon", "parts": [{"exterior": [[0, 0], [1, 0], [1, 1]]}]},
            "polygon 0 0 1 0 1 1",
        ),
        ({"geometryType": "oriented_bbox", "points": [[1, 2], [3, 4]]}, "box 1 2 3 4"),
        ({"geometryType": "bitmap", "bitmap": {"data": "?", "origin": [1, 2]}}, ""),
        ({"geometryType": "rectangle", "points": {"exterior": [["a", 2]]}}, ""),
        ({"geometryType": "cuboid_3d"}, ""),
        ({}, ""),
    ],
)
def test_outlines(figure, expected):
    found = [
        " ".join([o["kind"], *(f"{v:g}" for point in o["points"] for v in point)])
        for o in outlines(figure)
    ]
    assert " ".join(found) == expected


def test_page_shows_changes_of_other_processes(tmp_path):
    """Changes of other processes are visible: nothing is cached in memory."""
    with LocalInstance(tmp_path / "instance") as instance:
        assert get(instance, "page/api/projects").json()["total"] == 0
        other = Store(tmp_path / "instance")
        fill_project(other, "from outside", images=1)
        other.close()
        assert get(instance, "page/api/projects").json()["projects"][0]["name"] == "from outside"
