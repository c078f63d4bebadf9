"""Teams, workspaces, the user, the instance."""

from unittest.mock import Mock

import pytest
import requests


def test_team_and_workspace_1_exist_from_the_start(api):
    team = api.team.get_info_by_id(1)
    assert (team.id, team.name, team.role) == (1, "My team", "admin")
    workspace = api.workspace.get_info_by_id(1)
    assert (workspace.id, workspace.team_id, workspace.name) == (1, 1, "My workspace")
    assert [each.id for each in api.workspace.get_list(1)][:1] == [1]
    assert [each.id for each in api.team.get_list()][:1] == [1]


def test_what_does_not_exist_is_none(api):
    assert api.team.get_info_by_id(999) is None
    assert api.workspace.get_info_by_id(999) is None
    assert api.project.get_info_by_id(999) is None
    assert api.dataset.get_info_by_id(999) is None
    assert api.image.get_info_by_id(999) is None


def test_user_and_instance(api):
    assert api.user.get_my_info().login == "local"
    assert api.instance_version == "6.18.3"
    assert api.is_version_supported("6.9.31")


def test_a_hidden_workspace_is_found_by_name(api):
    made = api.workspace.create(1, "Hidden one", "why", hidden=True)
    assert api.workspace.get_info_by_name(1, "Hidden one").id == made.id
    assert api.workspace.get_info_by_name(1, "Hidden one").description == "why"


def test_a_taken_name_is_refused_or_changed(api):
    api.workspace.create(1, "twice")
    with pytest.raises(requests.HTTPError, match="exists already; use another name"):
        api.workspace.create(1, "twice")
    assert api.workspace.create(1, "twice", change_name_if_conflict=True).name == "twice_001"
    api.team.create("team twice")
    with pytest.raises(requests.HTTPError, match="exists already; use another name"):
        api.team.create("team twice")


def test_editing_a_workspace(api):
    made = api.workspace.create(1, "before")
    assert api.workspace.update(made.id, name="after", description="d").name == "after"
    assert api.workspace.get_info_by_id(made.id).description == "d"
    with pytest.raises(requests.HTTPError, match="'My workspace' exists already"):
        api.workspace.update(made.id, name="My workspace")


@pytest.mark.parametrize("kind", ["team", "workspace"])
def test_permanent_removal(api, kind):
    module = getattr(api, kind)

    def make(count):
        parent = [1] if kind == "workspace" else []
        ids = [
            module.create(*parent, f"gone {i}", change_name_if_conflict=True).id
            for i in range(count)
        ]
        for id_ in ids:
            module.archive(id_)
            assert module.get_info_by_id(id_) is None
        return ids

    assert all("taskId" in answer for answer in module.remove_permanently(make(1)[0]))
    told = Mock()
    assert len(module.remove_permanently(make(3), progress_cb=told)) == 1
    told.assert_called_with(3)
    ids = make(3)
    assert len(module.remove_permanently(ids, 1)) == 3
    assert [module.get_info_by_id(id_) for id_ in ids] == [None] * 3


def test_a_removed_team_takes_its_files_and_projects_with_it(api, instance):
    team = api.team.create("short-lived")
    workspace = api.workspace.create(team.id, "w")
    project = api.project.create(workspace.id, "p")
    record = instance.store.files.put_path(team.id, "/f", b"only here")
    contents = instance.store.files.contents(record)
    api.team.remove_permanently(team.id)
    assert api.workspace.get_info_by_id(workspace.id) is None
    assert api.project.get_info_by_id(project.id) is None
    assert instance.store.files.entries(team.id, "/") == []
    instance.store.clean()
    assert not contents.exists()
