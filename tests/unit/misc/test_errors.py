"""The errors a user can meet: one root, and the built-in kinds that callers may catch."""

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
def test_every_error_is_caught_as_ours_and_as_the_builtin_it_is(name, builtin):
    kind = getattr(errors, name)
    for caught in (errors.RTDETRError, builtin):
        with pytest.raises(caught, match="^image 17 has a box of width 0; remove it$"):
            raise kind("image 17 has a box of width 0; remove it")


def test_a_user_error_is_not_mistaken_for_a_bug():
    bugs = (TypeError, KeyError, AttributeError, RuntimeError, OSError)
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    assert len(kinds) == 8
    assert not [kind for kind in kinds if issubclass(kind, bugs)]
