"""Tasks: status, output, page content, workflow; apps."""

import jsonpatch
import pytest
import requests
from supervisely.api.task_api import TaskApi


@pytest.fixture
def task(instance):
    return instance.store.tasks.create(
        app={"id": 1, "name": "Train RT-DETRv2", "version": "2.0.0"},
        state={"guiState": "{}", "trainMode": "new"},
    )


def test_record(api, task):
    info = api.task.get_info_by_id(task)
    assert (info["id"], info["teamId"], info["workspaceId"]) == (task, 1, 1)
    assert (info["status"], info["type"]) == ("queued", "app")
    assert info["meta"]["app"] == {"id": 1, "name": "Train RT-DETRv2", "version": "2.0.0"}
    assert info["meta"]["params"]["state"] == {"guiState": "{}", "trainMode": "new"}
    assert len(info["meta"]["sessionToken"]) > 20
    assert (info["startedAt"], info["finishedAt"], info["agentName"]) == (None, None, "local")
    assert task in [each["id"] for each in api.task.get_list(1)]
    running = api.task.get_list(1, [{"field": "status", "operator": "=", "value": "queued"}])
    assert task in [each["id"] for each in running]


def test_missing_task(api):
    assert api.task.get_info_by_id(9999) is None
    with pytest.raises(requests.HTTPError, match="task 9999 does not exist"):
        api.task.set_output_text(9999, "x")


@pytest.mark.parametrize("end", ["finished", "stopped", "error"])
def test_lifecycle(api, instance, task, end):
    instance.store.tasks.set_status(task, "started")
    started = api.task.get_info_by_id(task)
    assert (started["status"], started["finishedAt"]) == ("started", None)
    assert started["startedAt"] is not None
    instance.store.tasks.set_status(task, end, error="disk full" if end == "error" else None)
    ended = api.task.get_info_by_id(task)
    assert api.task.get_status(task) == TaskApi.Status(end)
    assert ended["finishedAt"] >= ended["startedAt"] == started["startedAt"]
    assert ended["error"] == ("disk full" if end == "error" else None)


def test_restart_clears_the_page(api, instance, task):
    api.task._update_app_content(task, [{"op": "add", "path": "/old", "value": 1}], {"s": 1})
    instance.store.tasks.set_status(task, "error", error="killed")
    instance.store.tasks.set_status(task, "started")
    info = api.task.get_info_by_id(task)
    assert (info["error"], info["finishedAt"]) == (None, None)
    assert instance.store.tasks.content(task) == {"data": {}, "state": {}}


def test_status_update(api, task):
    api.task.update_status(task, TaskApi.Status.DEPLOYED)
    assert api.task.get_status(task) == TaskApi.Status.DEPLOYED
    with pytest.raises(requests.HTTPError, match="unknown status 'odd'; use one of queued"):
        api.post("tasks.status.update", {"id": task, "status": "odd"})


def test_output(api, task):
    api.task.set_output_experiment(task, {"experiment_name": "e", "best": "best.pth"})
    api.task.set_output_text(task, "title", "description")
    output = api.task.get_info_by_id(task)["meta"]["output"]
    assert output["experiment"]["data"] == {"experiment_name": "e", "best": "best.pth"}
    assert output["general"]["title"] == "title"


def test_meta(api, task):
    token = api.task.get_info_by_id(task)["meta"]["sessionToken"]
    api.task.update_meta(task, {"templateRootDirectory": "/offline-sessions/1"})
    meta = api.task.get_info_by_id(task)["meta"]
    assert meta["templateRootDirectory"] == "/offline-sessions/1"
    assert meta["sessionToken"] == token


def test_page_patches(api, instance, task):
    documents = [
        {},
        {"bar": {"percent": 0}, "log": ["a"]},
        {"bar": {"percent": 50}, "log": ["a", "b"], "é": None},
        {"log": ["b"]},
    ]
    for old, new in zip(documents, documents[1:], strict=False):
        patch = list(jsonpatch.JsonPatch.from_diff(old, new))
        api.task._update_app_content(task, patch, {"step": len(new)})
        assert instance.store.tasks.content(task) == {"data": new, "state": {"step": len(new)}}
    api.task._update_app_content(task, [{"op": "add", "path": "/x", "value": 1}])
    assert instance.store.tasks.content(task) == {
        "data": {"log": ["b"], "x": 1},
        "state": {"step": 1},
    }
    with pytest.raises(requests.HTTPError, match="the patch does not fit"):
        api.task._update_app_content(task, [{"op": "remove", "path": "/missing"}])
    assert instance.store.tasks.content(task)["data"] == {"log": ["b"], "x": 1}


def test_page_fields(api, task):
    api.task.set_fields_from_dict(task, {"data.a.b": 1, "state.list": [1]})
    api.task.set_field(task, "state.list", [2], append=True)
    assert api.task.get_fields(task, ["data.a.b", "state", "data.none"]) == {
        "data.a.b": 1,
        "state": {"list": [1, 2]},
        "data.none": None,
    }
    assert api.task.get_field(task, "data.a") == {"b": 1}
    with pytest.raises(requests.HTTPError, match="must begin with data or state"):
        api.task.set_field(task, "other.x", 1)


def test_workflow(api, instance, project, task, monkeypatch):
    monkeypatch.setenv("SUPERVISELY_TASK_ID", str(task))
    monkeypatch.setenv("TEAM_ID", "1")
    client = instance.api()
    client.app.workflow.enable()
    client.app.workflow.add_input_project(project.id)
    client.app.workflow.add_output_folder("/experiments/1_x/")
    nodes = instance.store.tasks.nodes(task)
    assert [(each["direction"], each["type"], each["target"]) for each in nodes] == [
        ("input", "project", project.id),
        ("output", "folder", "/experiments/1_x/"),
    ]


def test_training_app(api, task):
    app_id = api.task.get_info_by_id(task)["meta"]["app"]["id"]
    app = api.app.get_info_by_id(app_id)
    assert (app.name, app.team_id, app.disabled) == ("Train RT-DETRv2", 1, False)
    assert app.config["docker_image"].startswith("supervisely/")
    assert app.repo.startswith("https://")
    assert api.app.get_info(app_id)["repo"] == app.repo
    assert api.app.get_ecosystem_module_info(slug=app.slug).id == app_id


def test_linked_apps(api):
    from supervisely.nn.training.gui.utils import get_module_info_by_name

    viewer = get_module_info_by_name(api, "Tensorboard Experiments Viewer")
    slug = "supervisely-ecosystem/tensorboard-experiments-viewer"
    assert api.app.get_ecosystem_module_id(slug) == viewer["id"]
    assert get_module_info_by_name(api, "Train RT-DETRv2")["id"] == 1
    assert get_module_info_by_name(api, "no such app") is None
    with pytest.raises(KeyError, match="not found in ecosystem"):
        api.app.get_ecosystem_module_id("supervisely-ecosystem/none")
    assert api.app.get_info_by_id(99) is None
