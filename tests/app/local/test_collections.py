"""Collections of images, and the split by datasets that the training app offers."""

import numpy as np
import pytest
import requests
from supervisely.api.entities_collection_api import (
    CollectionItem,
    CollectionType,
    CollectionTypeFilter,
)


@pytest.fixture
def images(api, dataset, array):
    names = ["a.png", "b.png", "c.png"]
    return api.image.upload_nps(dataset.id, names, [array(i) for i in range(3)])


def test_record(api, project):
    made = api.entities_collection.create(project.id, "train_001", "text")
    assert api.entities_collection.get_info_by_id(made.id) == made
    assert (made.name, made.project_id, made.team_id, made.description, made.type) == (
        *("train_001", project.id, 1, "text", CollectionType.DEFAULT),
    )
    assert made.ai_search_key is None
    assert api.entities_collection.get_info_by_id(made.id + 1000) is None


def test_types_and_meta(api, project):
    collections = api.entities_collection
    plain = collections.create(project.id, "plain")
    search = collections.create(
        project.id, "search", type=CollectionType.AI_SEARCH, ai_search_key="key"
    )
    assert search.type == CollectionType.AI_SEARCH
    assert collections.get_info_by_id(search.id).ai_search_key is None
    assert collections.get_info_by_id(search.id, with_meta=True).ai_search_key == "key"
    assert collections.get_info_by_ai_search_key(project.id, "key").id == search.id
    assert [each.id for each in collections.get_list(project.id)] == [plain.id]
    everything = collections.get_list(project.id, collection_type=CollectionType.ALL)
    assert [each.id for each in everything] == [plain.id, search.id]
    with pytest.raises(ValueError, match="ai_search_key is required"):
        collections.create(project.id, "no key", type=CollectionType.AI_SEARCH)


def test_names(api, project):
    collections = api.entities_collection
    first = collections.create(project.id, "same")
    with pytest.raises(requests.HTTPError, match="'same' already exists"):
        collections.create(project.id, "same")
    assert collections.create(project.id, "same", change_name_if_conflict=True).name == "same_001"
    assert collections.get_info_by_name(project.id, "same").id == first.id
    assert collections.update(first.id, name="other").name == "other"


def test_items(api, project, images):
    collections = api.entities_collection
    id_ = collections.create(project.id, "items").id
    a, b, c = images
    added = collections.add_items(id_, [c.id, a.id])
    assert {each["imageId"] for each in added} == {a.id, c.id}
    added = collections.add_items(id_, [CollectionItem(b.id, CollectionItem.Meta(0.5))])
    assert [(each["entityId"], each["meta"]) for each in added] == [(b.id, {"score": 0.5})]
    collections.add_items(id_, [a.id])  # adding twice has no effect
    items = collections.get_items(id_, CollectionTypeFilter.DEFAULT)
    assert items == [api.image.get_info_by_id(each.id) for each in images]
    removed = collections.remove_items(id_, [b.id])
    assert [each["imageId"] for each in removed] == [b.id]
    items = collections.get_items(id_, CollectionTypeFilter.DEFAULT)
    assert [each.id for each in items] == [a.id, c.id]


def test_images_of_other_projects_are_missing(api, project, images, array):
    other = api.project.create(1, "other project", change_name_if_conflict=True)
    dataset = api.dataset.create(other.id, "ds")
    foreign = api.image.upload_np(dataset.id, "f.png", array(8))
    id_ = api.entities_collection.create(project.id, "strict").id
    for wrong in (99999999, foreign.id):
        with pytest.raises(RuntimeError, match=str(wrong)):
            api.entities_collection.add_items(id_, [images[0].id, wrong])


def test_removed_images_leave_collections(api, project, images):
    id_ = api.entities_collection.create(project.id, "shrinking").id
    api.entities_collection.add_items(id_, [each.id for each in images])
    api.image.remove(images[1].id)
    items = api.entities_collection.get_items(id_, CollectionTypeFilter.DEFAULT)
    assert [each.id for each in items] == [images[0].id, images[2].id]


def test_images_of_a_removed_dataset_leave_collections(api, project, dataset, images):
    id_ = api.entities_collection.create(project.id, "emptied").id
    api.entities_collection.add_items(id_, [each.id for each in images])
    api.dataset.remove(dataset.id)
    (record,) = api.post("entities-collections.list", {"projectId": project.id}).json()["entities"]
    assert record["itemsCount"] == 0


def test_removal_keeps_images(api, project, images):
    id_ = api.entities_collection.create(project.id, "gone").id
    api.entities_collection.add_items(id_, [images[0].id])
    api.entities_collection.remove(id_)
    assert api.entities_collection.get_info_by_id(id_) is None
    assert api.image.get_info_by_id(images[0].id) is not None
    with pytest.raises(requests.HTTPError, match="404"):
        api.entities_collection.remove(id_)


def test_split_by_nested_datasets(api, instance, project, monkeypatch, tmp_path):
    from supervisely.app.widgets.train_val_splits.train_val_splits import TrainValSplits

    monkeypatch.setenv("TEAM_ID", "1")
    monkeypatch.setenv("WORKSPACE_ID", "1")
    monkeypatch.setenv("SLY_APP_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("SERVER_ADDRESS", instance.address)
    monkeypatch.setenv("API_TOKEN", instance.token)
    monkeypatch.chdir(tmp_path)
    counts = {}

    def make(name, count=0, parent=None):
        dataset = api.dataset.create(project.id, name, parent_id=parent)
        if count:
            names = [f"{name}_{number}.png" for number in range(count)]
            api.image.upload_nps(dataset.id, names, [np.zeros((16, 16, 3), np.uint8)] * count)
        counts[dataset.id] = count
        return dataset.id

    train = make("TrainData")
    inner = make("Dataset2", parent=train)
    trained = [make("Dataset1", 3, train), make("sub1", 2, inner), make("sub2", 4, inner)]
    val = make("ValData")
    validated = [make("Dataset3", 5, val), make("Dataset4", 1, val)]
    trained.append(make("Flat", 6))
    widget = TrainValSplits(project.id, random_splits=False, tags_splits=False)
    widget._train_ds_select.set_project_id(project.id)
    widget._val_ds_select.set_project_id(project.id)
    widget.set_datasets_splits(trained, validated)
    train_set, val_set = widget.get_splits()
    assert (len(train_set), len(val_set)) == (3 + 2 + 4 + 6, 5 + 1)
