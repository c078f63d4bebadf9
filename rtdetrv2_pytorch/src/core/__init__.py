"""Configuration: from YAML files to checked, built objects."""

from ..misc.errors import ConfigError
from .yaml_config import YAMLConfig

__all__ = ["ConfigError", "YAMLConfig"]
