"""Errors for users say what to do: each message has a remedy, or names what is valid."""

import ast
import re

from rtdetrv2_pytorch.src.misc import errors
from tests.architecture.test_sizes import ROOT, source_files

NAMES = {name for name in vars(errors) if name.endswith("Error")} | {"OutOfMemory", "UsageError"}
# A second clause with a verb, or the values that are valid.
VERBS = (
    "add|build|change|check|choose|close|copy|correct|delete|deploy|disable|download|edit|enable|"
    "evaluate|export|free|give|increase|install|label|leave|limit|load|lower|merge|move|name|open|"
    "pull|put|quote|reduce|remove|rename|repair|restore|resume|run|save|see|select|send|set|start|"
    "stop|train|try|unpack|use|wait|write"
)
REMEDY = re.compile(
    rf"[;:,(.] ?(\w+ )?({VERBS})s?\b|\bgive\b|\bmust\b|the nearest|did you mean|suggest\(|"
    r"\{(hint|remedy|_EXPLICIT|reasons)|expected|looked for|needs?\b|only\b|there are|projects:|"
    r"; it has\b|(; the \w+|published models|its classes) (are|have)\b|the image is skipped|"
    r"a project has|has no|RT-DETRv2 has|at most|up to|cannot be written for transformers|lists",
    re.IGNORECASE,
)
# Messages that consist of other messages, and those of values that are converted elsewhere.
WITHOUT = re.compile(r"^(\{[^}]*\}[:;. ]*)*$|^<|^optimizer.params: \{error\}$")


def text_of(node):
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(map(text_of, node.values))
    if isinstance(node, ast.FormattedValue):
        return f"{{{ast.unparse(node.value)}}}"
    if isinstance(node, ast.BinOp):
        return text_of(node.left) + text_of(node.right)
    return f"<{ast.unparse(node)}>"


def messages(tree):
    """Yield (line, message) of the errors that are raised."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
            called = node.exc.func
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            if name in NAMES:
                yield node.lineno, text_of(node.exc.args[0])


def test_errors_have_a_remedy():
    found = [
        f"{path.relative_to(ROOT)}:{line}: {text}"
        for path in source_files(".py")
        for line, text in messages(ast.parse(path.read_text(encoding="utf-8")))
        if not REMEDY.search(text) and not WITHOUT.match(text)
    ]
    assert found == []
