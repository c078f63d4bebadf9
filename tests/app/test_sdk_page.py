"""`docs/sdk.md` lists every touch point, with tests that exist."""

import ast
import inspect
import re
from pathlib import Path

from supervisely_integration.paths import PACKAGE, ROOT
from supervisely_integration.sdk import inference, train_page
from supervisely_integration.serve.rtdetrv2 import RTDETRv2
from supervisely_integration.train.app import TrainApp

PAGE = (ROOT / "docs" / "sdk.md").read_text(encoding="utf-8")


def private_overrides():
    """Return private methods of the SDK that the project overrides."""
    modules = (inference, train_page)
    own = (c for module in modules for _, c in inspect.getmembers(module, inspect.isclass))
    classes = [RTDETRv2, TrainApp, *own]
    for cls in classes:
        bases = [base for base in cls.__mro__[1:] if base.__module__.startswith("supervisely.")]
        if cls.__module__.startswith("supervisely."):
            continue
        for name in vars(cls):
            is_private = name.startswith("_") and not name.startswith("__")
            if is_private and any(name in vars(base) for base in bases):
                yield f"{cls.__name__}.{name}"


def replaced_names():
    """Names that `sdk.attributes.replaced` replaces."""
    for path in (PACKAGE / "sdk").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "replaced":
                yield node.args[1].value


def test_page_lists_every_override_and_replaced_name():
    overrides, replaced = set(private_overrides()), set(replaced_names())
    assert len(overrides) == 18  # and a session's method, which is defined in a function
    assert len(replaced) == 13
    assert [name for name in sorted(overrides) if f"`{name}`" not in PAGE] == []
    # The classes of the page appear as the names of their subclasses.
    assert [name for name in sorted(replaced) if not re.search(rf"`\w*{name}`", PAGE)] == []


def test_tests_on_the_page_exist():
    names = set(re.findall(r"`(test_\w+?)(?:\.\.\.)?`", PAGE))
    assert len(names) > 20
    files = [
        *(ROOT / "tests" / "app").glob("*.py"),
        *(ROOT / "tests" / "unit" / "app").glob("*.py"),
        *(ROOT / "tests" / "browser").glob("*.py"),
    ]
    source = "\n".join(path.read_text(encoding="utf-8") for path in files)
    defined = set(re.findall(r"def (test_\w+)", source))
    assert [n for n in sorted(names) if not any(each.startswith(n) for each in defined)] == []
    for path in re.findall(r"`(tests/\S+\.py)`", PAGE):
        assert Path(ROOT, path).is_file()


def test_every_table_has_a_header():
    lines = ["", *PAGE.splitlines()]
    starts = [i for i, line in enumerate(lines) if line.startswith("|") and lines[i - 1] == ""]
    assert len(starts) == len(re.findall("^## ", PAGE, re.MULTILINE)) - 1  # one has no table
    assert [lines[i] for i in starts if not re.fullmatch(r"\|(?:-+\|)+", lines[i + 1])] == []
