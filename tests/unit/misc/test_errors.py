"""Errors have one base class and the built-in base classes that callers catch."""

import pytest

from rtdetrv2_pytorch.src.misc import errors


@pytest.mark.parametrize(
    ("name", "builtin"),
    [
        ("ConfigError", ValueError),
        ("DatasetError", Exception),
        ("CheckpointError", Exception),
        ("ExportError", Exception),
        ("TrainingDiverged", ArithmeticError),
        ("OutOfMemory", Exception),
        ("RankError", Exception),
    ],
)
def test_errors_have_base_classes(name, builtin):
    kind = getattr(errors, name)
    for caught in (errors.RTDETRError, builtin):
        with pytest.raises(caught, match="^image 17 has a box of width 0; remove it$"):
            raise kind("image 17 has a box of width 0; remove it")


def test_errors_are_not_builtin_bug_types():
    bugs = (TypeError, KeyError, AttributeError, RuntimeError, OSError)
    own = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    kinds = [kind for kind in own if kind.__module__ == errors.__name__]
    assert len(kinds) == 8
    assert not [kind for kind in kinds if issubclass(kind, bugs)]
