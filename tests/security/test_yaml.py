"""Untrusted YAML executes no code, reads only YAML files and uses bounded memory."""

import os

import pytest
import yaml

from rtdetrv2_pytorch.src.core import YAMLConfig
from rtdetrv2_pytorch.src.core.yaml_files import parse_overrides, read_layers
from rtdetrv2_pytorch.src.misc.errors import ConfigError
from rtdetrv2_pytorch.src.misc.limits import MAX_YAML_CHARS, read_yaml
from tests.security.peak_memory import at_most

MB = 1 << 20
LAUGHS = "a0: &a0 [ha]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30)
)
MERGED_LAUGHS = "a0: &a0 {k: ha}\n" + "".join(
    f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 30)
)
# Text and the expected error.
HOSTILE = {
    "tag": ("a: !!python/object/apply:os.system ['touch ran']", "could not determine a constr"),
    "name": ("a: !!python/name:os.system", "could not determine a constructor"),
    "module": ("a: !!python/module:antigravity", "could not determine a constructor"),
    "laughs": (LAUGHS, "expanded, it would have"),
    "laughs in merge keys": (MERGED_LAUGHS, "expanded, it would have"),
    "itself": ("a: &a [*a]", "it contains itself"),
    "lists": ("a: " + "[" * 50_000, "nested too deeply"),
    "mappings": ("{a: " * 50_000, "nested too deeply"),
    "blocks": ("\n".join(" " * i + "a:" for i in range(1000)), "nested too deeply"),
    "long": ("a: " + "x" * MAX_YAML_CHARS, "characters"),
    "date": ("a: 2001-99-99", "month must be in 1..12"),
    "number": ("a: " + "9" * 5000, "integer string conversion"),
    "control character": ("a: \x07", "special characters are not allowed"),
    "two documents": ("a: 1\n---\nb: 2", "expected a single document"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_file_raises_one_error(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    text, reason = HOSTILE[kind]
    (tmp_path / "hostile.yml").write_text(text)
    with (
        at_most(128 * MB),
        pytest.raises(ConfigError, match=rf"hostile\.yml.*: invalid YAML.* \(.*{reason}"),
    ):
        read_layers(tmp_path / "hostile.yml")
    assert not (tmp_path / "ran").exists()


def test_tag_executes_code_with_unsafe_loader(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yaml.unsafe_load(HOSTILE["tag"][0])
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("kind", ["tag", "laughs", "lists", "date"])
def test_hostile_override_raises_one_error(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    text = HOSTILE[kind][0].removeprefix("a: ")
    with pytest.raises(ConfigError, match="invalid YAML .*; quote the value"):
        parse_overrides([f"PResNet.depth={text}"])
    assert not (tmp_path / "ran").exists()


def test_valid_yaml_is_read():
    text = "a: &a {x: 1, y: [2, .5]}\nb: {<<: *a, x: 3}\nc: [*a, *a]\nd: 2001-02-03\n"
    assert read_yaml(text) == yaml.safe_load(text)
    assert read_yaml("# nothing") is None


@pytest.mark.parametrize(
    ("include", "reason"),
    [
        ("../../../../../../../../etc/passwd", "give .yml or .yaml files"),
        ("/dev/zero", "give .yml or .yaml files"),
        ("~/.ssh/id_rsa", "give .yml or .yaml files"),
        ("~nobody-of-that-name/a.yml", "not a valid path"),
        ("a\0.yml", "not a valid path"),
        ("x" * 300 + ".yml", "could not read"),
        ("folder.yml", "not a regular file"),
        ("pipe.yml", "not a regular file"),
        ("zero.yml", "not a regular file"),
        ("loop.yml", "valid path|could not read"),
        ("self.yml", "includes itself"),
        ("two.yml", "includes itself"),
        (["nested"], "give .yml or .yaml files"),
        ({"a": 1}, "give .yml or .yaml files"),
    ],
)
def test_includes_accept_yaml_files_only(tmp_path, include, reason):
    (tmp_path / "folder.yml").mkdir()
    os.mkfifo(tmp_path / "pipe.yml")
    (tmp_path / "zero.yml").symlink_to("/dev/zero")
    (tmp_path / "loop.yml").symlink_to("loop.yml")
    (tmp_path / "two.yml").write_text("__include__: [self.yml]")
    (tmp_path / "self.yml").write_text(yaml.safe_dump({"__include__": [include]}))
    with pytest.raises(ConfigError, match=reason):
        read_layers(tmp_path / "self.yml")


def test_nested_includes_are_limited(tmp_path):
    for i in range(40):
        (tmp_path / f"{i}.yml").write_text(f"__include__: [{i + 1}.yml, {i + 1}.yml]")
    (tmp_path / "40.yml").write_text("a: 1")
    with pytest.raises(ConfigError, match="merge some"):
        read_layers(tmp_path / "0.yml")
    for i in range(18):
        (tmp_path / f"{i}.yml").write_text(f"__include__: [{i + 1}.yml, {i + 1}.yml]")
    (tmp_path / "18.yml").write_text("a: 1")
    with pytest.raises(ConfigError, match="includes more than 100 files"):
        read_layers(tmp_path / "0.yml")


@pytest.mark.parametrize(
    "values",
    [
        {"model": "os.system"},
        {"model": {"type": "subprocess.Popen"}},
        {"type": "builtins.eval"},
        {"evaluator": {"type": "rtdetrv2_pytorch.src.misc.weights.load_checkpoint"}},
        {"optimizer": {"type": "__import__"}},
    ],
)
def test_type_names_outside_catalog_are_rejected(values):
    with pytest.raises(ConfigError):
        YAMLConfig.from_values(values, name="hostile")
