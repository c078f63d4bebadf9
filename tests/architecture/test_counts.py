"""Counts in messages are formatted by `counted`: "1 image", "2 images"."""

import ast
import re

import pytest

from rtdetrv2_pytorch.src.misc.text import counted
from tests.architecture.test_sizes import ROOT, source_files

NOUNS = (
    "annotations|batches|boxes|channels|characters|classes|cores|crops|datasets|detections|devices|"
    "entries|epochs|errors|experiments|files|frames|groups|images|layers|levels|maps|"
    "micro-batches|objects|pages|parameters|points|projects|queries|ranks|restarts|rows|"
    "runs|splits|steps|tags|tasks|threads|values|warnings|weights|workers"
)
# Up to three adjectives, as in "5 consecutive steps".
NO_ADJECTIVES = "and|as|has|in|lists|names?|no|of|or|split|too|with|without"
PHRASE = rf" (?:(?!(?:{NO_ADJECTIVES}) )[a-z-]+ ){{0,3}}({NOUNS})\b(?!=)"
AFTER_COUNT = re.compile(f"^{PHRASE}")
IN_FORMAT = re.compile(f"%[ds]{PHRASE}")


def uncounted(tree):
    """Yield (line, text) of each count that is followed by a plural noun."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            for value, text in zip(node.values, node.values[1:], strict=False):
                is_count = isinstance(value, ast.FormattedValue) and not value.format_spec
                if not (is_count and value.conversion == -1 and isinstance(text, ast.Constant)):
                    continue
                name = ast.unparse(value.value)
                is_constant = name.rpartition(".")[2].isupper()
                found = AFTER_COUNT.match(str(text.value))
                if found and not is_constant:
                    yield node.lineno, f"{{{name}}}{found[0]}"
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            for found in IN_FORMAT.finditer(node.value):
                yield node.lineno, found[0]


def test_counts_agree_with_their_nouns():
    found = [
        f"{path.relative_to(ROOT)}:{line}: {text}"
        for path in source_files(".py")
        if path.relative_to(ROOT).parts[0] != "tests"
        for line, text in uncounted(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert found == []


@pytest.mark.parametrize(
    ("count", "thing", "text"),
    [
        (1, "image", "1 image"),
        (0, "image", "0 images"),
        (2, "box", "2 boxes"),
        (2, "class", "2 classes"),
        (2, "batch", "2 batches"),
        (2, "epoch", "2 epochs"),
        (2, "query", "2 queries"),
        (1, "annotated entry", "1 annotated entry"),
        (3, "day", "3 days"),
        (1234, "object", "1234 objects"),
    ],
)
def test_counted(count, thing, text):
    assert counted(count, thing) == text


def test_uncounted_finds_both_kinds_of_messages():
    code = 'f"{n} images"; f"{n} other images of {m} classes"; "%d boxes"; f"{MAX} images"; "of %s"'
    assert [text for _, text in uncounted(ast.parse(code))] == [
        "{n} images", "{n} other images", "{m} classes", "%d boxes"
    ]  # fmt: skip


def test_counts_of_pages_use_the_filter():
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in source_files(".html")
        for match in re.finditer(rf"\{{\{{[^}}]*\}}\}}{PHRASE}", path.read_text(encoding="utf-8"))
    ]
    assert found == []
