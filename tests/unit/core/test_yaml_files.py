"""Reading and merging of YAML files with includes."""

import pytest

from rtdetrv2_pytorch.src.core import ConfigError
from rtdetrv2_pytorch.src.core.yaml_files import (
    get,
    last_setter,
    merge,
    merge_layers,
    parse_overrides,
    plain,
    put,
    read_layers,
    rename_keys,
)


def write(folder, **files):
    for name, text in files.items():
        (folder / f"{name}.yml").write_text(text)


def test_later_includes_and_the_file_itself_override(tmp_path):
    write(
        tmp_path,
        a="x: 1\ny: {p: 1, q: 1}\nlist: [1, 2]",
        b="x: 2\ny: {q: 2}",
        top="__include__: [a.yml, b.yml]\ny: {r: 3}\nlist: [9]",
    )
    merged = merge_layers(read_layers(tmp_path / "top.yml"))
    assert merged == {"x": 2, "y": {"p": 1, "q": 2, "r": 3}, "list": [9]}


def test_includes_are_relative_to_the_including_file(tmp_path, monkeypatch):
    (tmp_path / "sub").mkdir()
    write(tmp_path, base="x: 1")
    write(tmp_path / "sub", top="__include__: [../base.yml]")
    monkeypatch.chdir("/")
    assert merge_layers(read_layers(tmp_path / "sub" / "top.yml")) == {"x": 1}


def test_include_cycle_is_rejected(tmp_path):
    write(tmp_path, a="__include__: [b.yml]", b="__include__: [a.yml]")
    with pytest.raises(ConfigError, match=r"includes itself \(a.yml -> b.yml -> a.yml\)"):
        read_layers(tmp_path / "a.yml")


def test_repeated_include_is_not_a_cycle(tmp_path):
    write(
        tmp_path,
        base="x: 1",
        a="__include__: [base.yml]",
        b="__include__: [base.yml]",
        top="__include__: [a.yml, b.yml]",
    )
    assert merge_layers(read_layers(tmp_path / "top.yml")) == {"x": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "x: [1",
            r"top.yml, line 1: invalid YAML in column 6 \(while .*, expected .*; correct it$",
        ),
        ("- 1\n- 2", "not a mapping"),
        ("1: x", "not a mapping; write"),
        ("__include__: other.yml", "give a list of files"),
        ("__include__: [missing.yml]", r"missing.yml: could not read \(No such file"),
        ("x: !!python/object/apply:os.getcwd []", "invalid YAML"),
    ],
)
def test_invalid_files_are_rejected(tmp_path, text, message):
    write(tmp_path, top=text)
    with pytest.raises(ConfigError, match=message):
        read_layers(tmp_path / "top.yml")


def test_empty_file(tmp_path):
    write(tmp_path, top="")
    assert merge_layers(read_layers(tmp_path / "top.yml")) == {}


def test_epochs_is_renamed_in_every_layer(tmp_path):
    write(tmp_path, base="epoches: 72", top="__include__: [base.yml]\nepochs: 5")
    assert merge_layers(read_layers(tmp_path / "top.yml")) == {"epoches": 5}


def test_merge_does_not_modify_inputs():
    base, over = {"a": {"b": [1]}}, {"a": {"c": [2]}}
    merged = merge(base, over)
    merged["a"]["c"].append(3)
    assert base == {"a": {"b": [1]}}
    assert over == {"a": {"c": [2]}}


def test_recipe_epochs_of_a_file_without_epochs(tmp_path):
    write(
        tmp_path,
        loader="stop: 71",
        optimizer="epoches: 72",
        big="__include__: [loader.yml, optimizer.yml]",
        small="__include__: [loader.yml, optimizer.yml]\nepoches: 120\nstop2: 117",
        mine="__include__: [small.yml]\nepoches: 30",
    )
    layers = read_layers(tmp_path / "mine.yml")
    recipes = {layer.source.rsplit("/")[-1]: layer.recipe_epochs for layer in layers}
    assert recipes == {"loader.yml": 72, "optimizer.yml": 72, "small.yml": 120, "mine.yml": 30}


def test_last_setter_ignores_null(tmp_path):
    write(tmp_path, a="x: {y: 1}", b="x: {y: null}", top="__include__: [a.yml, b.yml]\nz: 1")
    layers = read_layers(tmp_path / "top.yml")
    assert last_setter(layers, ("x", "y")) == 0
    assert last_setter(layers, ("z",)) == 2
    assert last_setter(layers, ("unset",)) == -1


def test_get_and_put_by_path():
    values = {"a": {"b": 1}}
    put(values, ("a", "c", "d"), 2)
    assert values == {"a": {"b": 1, "c": {"d": 2}}}
    assert get(values, ("a", "c", "d")) == 2
    assert get(values, ("a", "b", "d")) is None


def test_names_of_other_trainers_are_accepted():
    parsed = parse_overrides(["imgsz=320", "batch=4", "lr=0.001", "epochs=3", "amp=true"])
    assert parsed == {
        "eval_spatial_size": [320, 320],
        "batch_size": 4,
        "optimizer": {"lr": 0.001},
        "epoches": 3,
        "use_amp": True,
    }
    assert parse_overrides(["imgsz=[320, 640]"]) == {"eval_spatial_size": [320, 640]}


def test_overrides_are_parsed_as_yaml():
    parsed = parse_overrides(
        ["epochs=3", "a.b.c=[320, 640]", "a.b.d=true", "b.lr=1e-4", "name=x=y", "none=null"]
    )
    assert parsed == {
        "epoches": 3,
        "a": {"b": {"c": [320, 640], "d": True}},
        "b": {"lr": "1e-4"},  # a string in YAML; converted by the type of the parameter
        "name": "x=y",
        "none": None,
    }


@pytest.mark.parametrize("text", ["epoches", "=3"])
def test_override_without_key_or_value_is_rejected(text):
    with pytest.raises(ConfigError, match=r"expected key=value, for example epoches=20"):
        parse_overrides([text])


def test_override_with_invalid_yaml_is_rejected():
    with pytest.raises(ConfigError, match="-u a=.*invalid YAML .*; quote the value"):
        parse_overrides(["a=[1"])


def test_plain_converts_paths_and_tuples(tmp_path):
    assert plain({"a": tmp_path, "b": (1, (2,))}) == {"a": str(tmp_path), "b": [1, [2]]}


def test_conflicting_spellings_are_rejected():
    with pytest.raises(ConfigError, match="epochs = 3 and epoches = 4: two spellings"):
        rename_keys({"epochs": 3, "epoches": 4})
    assert rename_keys({"epochs": 3, "epoches": 3}) == {"epoches": 3}
