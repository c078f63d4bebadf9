"""Messages, settings and findings in docs/troubleshooting.md exist in the code."""

import ast
import re
from dataclasses import fields
from pathlib import Path

import yaml

from rtdetrv2_pytorch.src.core.settings import Settings
from rtdetrv2_pytorch.src.data.finding_kinds import KINDS
from supervisely_integration.paths import HYPERPARAMETERS, INFERENCE_SETTINGS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()
# Messages of the SDK and of pydantic.
EXTERNAL = {"app_name is not defined", "should be a multiple of 32"}


def texts() -> str:
    """Return all string literals of the code, and the entry point."""
    found = [(ROOT / "docker" / "entrypoint.sh").read_text()]
    for package in ("rtdetrv2_pytorch", "supervisely_integration"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return "\n".join(found)


def test_rows_have_symptom_cause_and_remedy():
    rows = [line for line in PAGE.splitlines() if line.startswith("| ")]
    assert len(rows) > 40
    assert [row for row in rows if len(re.findall(r" \|(?= )", row)) != 2] == []
    remedies = [row.split(" | ")[2].strip(" |") for row in rows]
    assert [remedy for remedy in remedies if len(remedy) < 10 and remedy != "remedy"] == []


def test_quoted_messages_exist_in_code():
    literals = texts()
    quotes = set(re.findall(r'^\| "([^"]+)"', PAGE, re.MULTILINE)) - EXTERNAL
    assert len(quotes) >= 7
    parts = {quote: re.split(r"\.\.\.|/\S+|\d+", quote) for quote in quotes}
    missing = [q for q, p in parts.items() if not all(part.strip() in literals for part in p)]
    assert missing == []


def test_settings_and_findings_exist():
    known = {field.name for field in fields(Settings)} | set(KINDS)
    for path in (HYPERPARAMETERS, INFERENCE_SETTINGS):
        known |= set(yaml.safe_load(path.read_text()))
    known |= {"num_queries", "num_top_queries", "data_s", "bad_batches", "orig_target_sizes"}
    used = set(re.findall(r"`([a-z]+_[a-z_]+)(?:/|: [^`]*)?`", PAGE))
    assert len(used) > 12
    assert used - known == set()
