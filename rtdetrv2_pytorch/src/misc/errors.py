"""Errors for users. Each message names the problem, the place, the value and the remedy."""

from collections.abc import Iterator
from contextlib import contextmanager


class RTDETRError(Exception):
    """Base class of errors that the user can fix."""


class ConfigError(RTDETRError, ValueError):
    """A setting is unknown, invalid or contradicts another one.

    Attributes:
        source: file or other origin of the setting, part of the message; None if it is not known.
        line: of the setting in its source, from 1; None if it is not known.
    """

    source: str | None = None
    line: int | None = None

    def __str__(self) -> str:
        """Return the message, after the source and the line."""
        line = f", line {self.line}" if self.line else ""
        return f"{self.source}{line}: {super().__str__()}" if self.source else super().__str__()


class DatasetError(RTDETRError):
    """Images or annotations are unusable."""


class CheckpointError(RTDETRError):
    """A checkpoint is missing, damaged or of another model."""


class ExportError(RTDETRError):
    """An export failed, or its results differ from those of the model."""


class TrainingDiverged(RTDETRError, ArithmeticError):  # noqa: N818 (public name)
    """Outputs or losses are non-finite."""


class OutOfMemory(RTDETRError):  # noqa: N818 (public name)
    """The smallest micro-batch does not fit in device memory."""


class RankError(RTDETRError):
    """Another rank failed or was killed."""


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Name the extra to install if an import in the block fails.

    Args:
        name: of the extra in pyproject.toml.

    Raises:
        ConfigError: if a package is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"the package {error.name} is not installed; run: pip install 'rtdetrv2[{name}]'"
        ) from error
