"""Packages that only some uses need: the extras of pyproject.toml."""

from collections.abc import Iterator
from contextlib import contextmanager

from .errors import ConfigError


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Name the extra to install if an import in the block fails.

    Args:
        name: of the extra.

    Raises:
        ConfigError: if a package is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"the package {error.name} is not installed; run: pip install 'rtdetrv2[{name}]'"
        ) from error
