"""Teams, workspaces, the user, the instance."""

import pytest
import requests


def test_new_instance_has_a_team_and_a_workspace(api):
    team = api.team.get_info_by_id(1)
    assert (team.id, team.name, team.role) == (1, "My team", "admin")
    workspace = api.workspace.get_info_by_id(1)
    assert (workspace.id, workspace.team_id, workspace.name) == (1, 1, "My workspace")
    assert [each.id for each in api.workspace.get_list(1)][:1] == [1]
    assert [each.id for each in api.team.get_list()][:1] == [1]


def test_missing_records_are_none(api):
    assert api.team.get_info_by_id(999) is None
    assert api.workspace.get_info_by_id(999) is None
    assert api.project.get_info_by_id(999) is None
    assert api.dataset.get_info_by_id(999) is None
    assert api.image.get_info_by_id(999) is None


def test_user_and_version(api):
    assert api.user.get_my_info().login == "local"
    assert api.instance_version == "6.18.3"
    assert api.is_version_supported("6.9.31")


def test_hidden_workspace_is_found_by_name(api):
    made = api.workspace.create(1, "Hidden one", "why", hidden=True)
    assert api.workspace.get_info_by_name(1, "Hidden one").id == made.id
    assert api.workspace.get_info_by_name(1, "Hidden one").description == "why"


def test_workspace_name_conflict(api):
    api.workspace.create(1, "twice")
    with pytest.raises(requests.HTTPError, match="'twice' already exists in team 1; use another"):
        api.workspace.create(1, "twice")
    assert api.workspace.create(1, "twice", change_name_if_conflict=True).name == "twice_001"
