"""Commands in the documentation parse; fast ones run."""

import html
import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml

from rtdetrv2.cli import main as product
from rtdetrv2.commands import doctor
from supervisely_integration.local.launcher import cli
from supervisely_integration.serve import command

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "benchmarks" / "README.md",
    *sorted((ROOT / "supervisely_integration").glob("*/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docker").glob("*ompose.yml")),
    ROOT / "docker" / "Dockerfile.deploy",
    ROOT / "rtdetrv2_pytorch" / "src" / "report" / "page.html",
]
PROGRAMS = (
    "make",
    "python",
    "python3",
    "torchrun",
    "docker",
    "docker/publish.sh",
    "pip",
    "curl",
    "rtdetrv2",
)
SHELLS = ("", "sh", "bash")  # languages of code blocks
TOOLS = "rtdetrv2_pytorch.tools."
NOT_PARSED = ("benchmarks", "rtdetrv2.reference", "tests.integration.test_golden_loss")


def lines(page: Path) -> list[str]:
    """Return lines of code blocks, inline code, the report's commands, comments of Docker files."""
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".md":
        blocks = re.findall(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        found = "\n".join(block for language, block in blocks if language in SHELLS).splitlines()
        found += re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))
    elif page.suffix == ".html":
        blocks = re.findall(r"<(pre|code)>(.*?)</\1>", text, re.DOTALL)
        found = "\n".join(html.unescape(block) for _, block in blocks).splitlines()
    else:
        found = [line.removeprefix("# ") for line in text.splitlines() if line.startswith("# ")]
    return [line.strip().removeprefix("$ ") for line in found]


def words_of(line: str) -> list[str]:
    """Split a command into words, without leading variables and trailing comments."""
    try:
        words = shlex.split(line, comments=True)
    except ValueError:  # unbalanced quotes: not a command
        return []
    while words and re.fullmatch(r"\w+=\S*", words[0]):
        words.pop(0)
    return words


def is_command(words: list[str]) -> bool:
    """Return whether the words form a complete command and not only a program name."""
    names_a_module = words[1:2] == ["-m"] and len(words) == 3
    return len(words) > 1 and not names_a_module or "/" in words[0]


COMMANDS = sorted(
    {
        shlex.join(words)
        for page in PAGES
        for line in lines(page)
        if (words := words_of(line)) and words[0] in PROGRAMS and is_command(words)
    }
)


def check_make(words):
    run = ["make", "-n", *words[1:]]
    result = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def check_module(name, words):
    groups = {
        "supervisely_integration.local": cli.group,
        "supervisely_integration.serve.main": command.group,
    }
    if name in groups:
        group = groups[name]
        command_of = group.get_command(click.Context(group), words[0])
        assert command_of.make_context(words[0], list(words[1:]))
    elif name.startswith(NOT_PARSED):
        assert importlib.util.find_spec(name)
    elif name.startswith(TOOLS):
        assert importlib.import_module(name).main.make_context(name, list(words))
    else:
        assert importlib.import_module(f"{name}.__main__").parse_arguments(words)


def check_product(words):
    """Check a line of the command `rtdetrv2`."""
    command_of = product.get_command(click.Context(product), words[0])
    assert command_of.make_context(words[0], list(words[1:]))


PRODUCT_COMMANDS = (
    "benchmark",
    "config",
    "doctor",
    "export",
    "predict",
    "profile",
    "radar",
    "report",
)


@pytest.mark.parametrize("name", PRODUCT_COMMANDS)
def test_help_examples_of_the_product_parse(name):
    examples = importlib.import_module(f"rtdetrv2.commands.{name}")._EXAMPLES.splitlines()
    commands = [words for line in examples if (words := words_of(line))[:2] == ["rtdetrv2", name]]
    assert len(commands) >= 2
    for words in commands:
        check_product(words[1:])


def check_script(path, words, tmp_path, monkeypatch):
    """Check a demo script, in `demo` of an experiment or in `supervisely_integration/demo`."""
    script = ROOT / "supervisely_integration" / "demo" / Path(path).name
    assert path in (f"demo/{script.name}", str(script.relative_to(ROOT)))
    assert script.is_file()
    monkeypatch.syspath_prepend(str(script.parent))
    from demo_common import parse_arguments

    monkeypatch.chdir(tmp_path)
    model = tmp_path / "model"
    model.touch()
    words = [
        str(model) if before == "--model" else word
        for before, word in zip(["", *words[:-1]], words, strict=True)
    ]
    monkeypatch.setattr(sys, "argv", [script.name, "--model", str(model), *words])
    assert parse_arguments("", "").images


def check_docker(words):
    if "-f" in words:
        assert (ROOT / words[words.index("-f") + 1]).is_file()
    if words[1] == "compose":
        services = yaml.safe_load((ROOT / "docker" / "compose.yml").read_text())["services"]
        assert words[-2] == "up"
        assert words[-1] in services
    elif words[1] == "build":
        text = "".join(path.read_text() for path in (ROOT / "docker").glob("Dockerfile*"))
        for value in words[words.index("build") :]:
            if "=" in value:
                assert f"ARG {value.split('=')[0]}=" in text
    else:
        assert words[1] in ("run", "buildx")


@pytest.mark.parametrize("command", COMMANDS)
def test_command_parses(command, tmp_path, monkeypatch):
    words = shlex.split(command)
    if words[0] == "make":
        check_make(words)
    elif words[0] == "docker":
        check_docker(words)
    elif words[0] == "rtdetrv2":
        check_product(words[1:])
    elif words[0] == "pip" or words[1:3] == ["-m", "pip"]:
        assert "install" in words
        assert "-r" not in words or (ROOT / words[words.index("-r") + 1]).is_file()
    elif words[0] == "curl":
        assert re.fullmatch(r"localhost:8000/inference_image", words[-1])
    elif words[0] == "docker/publish.sh":
        assert (ROOT / words[0]).is_file()
    elif scripts := [word for word in words if word.startswith("tools/")]:
        place = words.index(scripts[0])
        check_module(TOOLS + Path(scripts[0]).stem, words[place + 1 :])
    elif "-m" in words:
        place = words.index("-m")
        check_module(words[place + 1], words[place + 2 :])
    else:
        check_script(words[1], words[2:], tmp_path, monkeypatch)


def test_pages_contain_commands_of_all_programs():
    text = "\n".join(COMMANDS)
    assert len(COMMANDS) > 40
    for part in (
        "make train",
        "local serve",
        "tools.train",
        "tools/train.py",
        "-m pip",
        "main deploy",
        "compose",
        "publish.sh",
    ):
        assert part in text


def test_make_without_target_lists_verbs():
    result = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True)
    verbs = re.findall(r"^  make ([a-z-]+) ", result.stdout, re.MULTILINE)
    assert {"install", "train", "gui", "test", "lock", "clean"} <= set(verbs)


def test_doctor_command_runs(digits, tmp_path, monkeypatch):
    command = "rtdetrv2 doctor --data my_dataset"
    assert command in COMMANDS
    monkeypatch.chdir(tmp_path)
    Path("my_dataset").symlink_to(digits)
    assert doctor.main([*shlex.split(command)[2:], "--no-cache"]) == 0
    assert Path("data_report.html").is_file()
