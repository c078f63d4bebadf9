"""The model table against the published models."""

import json
import re
from pathlib import Path

import pytest

from supervisely_integration import paths

PUBLISHED = json.loads(
    (Path(__file__).parents[2] / "golden" / "published_models.json").read_text(encoding="utf-8")
)
ROWS = json.loads(paths.MODELS.read_text(encoding="utf-8"))
COLUMNS = ["Model", "dataset", "AP_val", "Params(M)", "FPS(T4)", "Note", "meta"]
RANDOM = " (random weights)"
MAIN = ["S", "M*", "M", "L", "X"]


def config_of(row):
    return row["meta"]["model_files"]["config"].removesuffix(".yml")


def rows_ending(suffix):
    return [row for row in ROWS if row["Model"].endswith(suffix)]


def test_rows_and_their_order():
    names = [
        *(f"RT-DETRv2-{size}" for size in MAIN),
        *(f"RT-DETRv2-{size}_obj365" for size in ("S", "L", "X")),
        *(f"RT-DETRv2-{size}_dsp" for size in ("S", "M*", "M", "L")),
        *(f"RT-DETRv2-{size}{RANDOM}" for size in MAIN),
    ]
    assert [row["Model"] for row in ROWS] == names


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["Model"])
def test_row_has_the_columns_and_files_that_are_read(row):
    assert list(row) == COLUMNS  # the page's header comes from the first row
    assert row["meta"]["task_type"] == "object detection"
    assert row["meta"]["model_name"] == row["Model"]
    assert (paths.CONFIGS / row["meta"]["model_files"]["config"]).is_file()
    parameters = PUBLISHED["architectures"][config_of(row)]["params_total"]
    assert row["Params(M)"] == parameters // 1_000_000


@pytest.mark.parametrize("row", ROWS[:5], ids=lambda row: row["Model"])
def test_coco_rows_are_as_published(row):
    published = PUBLISHED["checkpoints"][config_of(row)]
    assert row["Model"] == published["name"]
    assert row["dataset"] == "COCO"
    assert row["AP_val"] == published["ap"]
    assert row["FPS(T4)"] == published["fps_t4"]
    assert row["Params(M)"] == published["params_m"]
    assert row["meta"]["model_files"]["checkpoint"] == published["checkpoint"]


@pytest.mark.parametrize("row", rows_ending("_dsp"), ids=lambda row: row["Model"])
def test_discrete_rows_are_as_published(row):
    published = PUBLISHED["checkpoints"][config_of(row)]
    assert row["Model"] == published["name"]
    assert row["AP_val"] == published["ap"]
    assert row["meta"]["model_files"]["checkpoint"] == published["checkpoint"]
    assert row["FPS(T4)"] == "-"  # not published


@pytest.mark.parametrize("row", rows_ending("_obj365"), ids=lambda row: row["Model"])
def test_objects365_rows_are_as_published(row):
    published = PUBLISHED["objects365"][config_of(row)]
    assert row["dataset"] == "COCO+Objects365"
    assert row["AP_val"] == published["ap"]
    coco = PUBLISHED["checkpoints"][config_of(row)]
    gain = f"AP {published['ap'] - coco['ap']:+.1f} over {coco['name']}"
    assert row["Note"] == f"{gain}; Objects365 images are for academic use"
    line = f"| {row['Model']} | {coco['ap']} | {published['ap']} | {published['ap50']} |"
    assert line in (paths.ROOT / "README.md").read_text(encoding="utf-8")
    assert row["meta"]["model_files"]["checkpoint"] == published["checkpoint"]
    # The same network, and so the same speed.
    assert row["FPS(T4)"] == PUBLISHED["checkpoints"][config_of(row)]["fps_t4"]
    assert row["Model"] == f"{PUBLISHED['checkpoints'][config_of(row)]['name']}_obj365"


@pytest.mark.parametrize("row", rows_ending(RANDOM), ids=lambda row: row["Model"])
def test_rows_with_random_weights_have_no_checkpoint(row):
    published = PUBLISHED["checkpoints"][config_of(row)]
    assert row["Model"] == published["name"] + RANDOM
    assert list(row["meta"]["model_files"]) == ["config"]
    assert (row["dataset"], row["AP_val"]) == ("-", "-")
    assert row["FPS(T4)"] == published["fps_t4"]


def test_every_url_is_published():
    published = {
        entry["checkpoint"]
        for group in ("checkpoints", "objects365")
        for entry in PUBLISHED[group].values()
    }
    used = [r["meta"]["model_files"].get("checkpoint") for r in ROWS]
    used = [address for address in used if address]
    assert set(used) <= published
    assert len(set(used)) == len(used) == 12


def test_readme_lists_the_published_rows():
    lines = (paths.TRAIN / "README.md").read_text(encoding="utf-8").splitlines()
    cells = [[c.strip().replace("\\", "") for c in x.strip("|").split("|")] for x in lines]
    for row in ROWS[:12]:
        assert [str(row[column]) for column in COLUMNS[:5]] in cells


def test_names_in_the_main_readme_are_those_of_the_apps():
    text = (paths.ROOT / "README.md").read_text(encoding="utf-8").replace("\\", "")
    listed = re.findall(r"^\| (RT-DETRv2-\S+) \| `(\S+\.yml)` \| (\S+) \|", text, re.MULTILINE)
    rows = [row for row in ROWS[:12] if not row["Model"].endswith("_obj365")]
    assert sorted(listed) == sorted(
        (row["Model"], row["meta"]["model_files"]["config"], str(row["AP_val"])) for row in rows
    )


def test_sdk_accepts_the_table():
    """Includes rows without weights; the app object is not used."""
    from supervisely.nn.training import train_app

    app = object.__new__(train_app.TrainApp)
    assert app._load_models(str(paths.MODELS)) == ROWS
