"""Datasets, including nested ones."""

import pytest
import requests


@pytest.fixture
def tree(api, project):
    """a, a/b, a/b/c, d"""
    a = api.dataset.create(project.id, "a", description="top")
    b = api.dataset.create(project.id, "b", parent_id=a.id)
    c = api.dataset.create(project.id, "c", parent_id=b.id, custom_data={"k": 1})
    d = api.dataset.create(project.id, "d")
    return a, b, c, d


def names(datasets):
    return [each.name for each in datasets]


def test_list_of_nested_datasets(api, project, tree):
    a, b, c, _ = tree
    assert names(api.dataset.get_list(project.id)) == ["a", "d"]
    assert names(api.dataset.get_list(project.id, recursive=True)) == ["a", "b", "c", "d"]
    assert names(api.dataset.get_list(project.id, parent_id=a.id)) == ["b"]
    assert [(path, each.name) for path, each in api.dataset.tree(project.id)] == [
        ([], "a"),
        (["a"], "b"),
        (["a", "b"], "c"),
        ([], "d"),
    ]
    assert names(api.dataset.get_nested(project.id, a.id)) == ["b", "c"]
    assert api.dataset.get_info_by_id(c.id).parent_id == b.id
    assert api.dataset.get_info_by_id(a.id).description == "top"
    assert api.project.get_info_by_id(project.id).datasets_count == 4


def test_custom_data_is_optional(api, project, tree):
    assert len(set(api.dataset.get_list(project.id, recursive=True))) == 4
    with_data = api.dataset.get_list(project.id, recursive=True, include_custom_data=True)
    assert [each.custom_data for each in with_data] == [{}, {}, {"k": 1}, {}]
    assert api.dataset.update_custom_data(tree[0].id, {"x": 2}).custom_data == {"x": 2}


def test_names_are_unique_within_a_parent(api, project, tree):
    a, b, *_ = tree
    with pytest.raises(requests.HTTPError, match="'b' already exists in project"):
        api.dataset.create(project.id, "b", parent_id=a.id)
    assert api.dataset.create(project.id, "b").parent_id is None
    fresh = api.dataset.create(project.id, "b", parent_id=a.id, change_name_if_conflict=True)
    assert fresh.name == "b_001"
    assert api.dataset.get_or_create(project.id, "b", parent_id=a.id).id == b.id


def test_parent_of_another_project_is_rejected(api, tree):
    other = api.project.create(1, "another", change_name_if_conflict=True)
    with pytest.raises(requests.HTTPError, match="is not in project"):
        api.dataset.create(other.id, "x", parent_id=tree[0].id)


def test_counts(api, project, tree, array):
    a, b, *_ = tree
    api.image.upload_nps(a.id, ["1.png", "2.png"], [array(1), array(2)])
    api.image.upload_nps(b.id, ["1.png"], [array(1)])
    infos = api.dataset.get_list(project.id, recursive=True)
    assert [each.images_count for each in infos] == [2, 1, 0, 0]
    assert [each.items_count for each in infos] == [2, 1, 0, 0]
    assert api.project.get_images_count(project.id) == 3
    assert api.project.get_info_by_id(project.id).items_count == 3


def test_archive_includes_nested_datasets(api, project, tree, array):
    a, b, c, d = tree
    image = api.image.upload_np(c.id, "1.png", array(1))
    api.dataset.remove(a.id)
    assert names(api.dataset.get_list(project.id, recursive=True)) == ["d"]
    assert api.dataset.get_info_by_id(c.id) is None
    assert api.image.get_info_by_id(image.id) is None
    assert api.project.get_info_by_id(project.id).items_count == 0
    assert api.dataset.create(project.id, "a").id not in (a.id, b.id, c.id, d.id)


def test_copy_dataset(api, project, tree, array):
    a, *_ = tree
    api.image.upload_nps(a.id, ["1.png", "2.png"], [array(1), array(2)])
    other = api.project.create(1, "copies", change_name_if_conflict=True)
    copy = api.dataset.copy(other.id, a.id, new_name="copy")
    assert [image.name for image in api.image.get_list(copy.id)] == ["1.png", "2.png"]


def test_unusual_name(api, project):
    name = "räksmörgås [1] (50%) 'x' \"y\" 100_"
    made = api.dataset.create(project.id, name)
    assert api.dataset.get_info_by_name(project.id, name).id == made.id
