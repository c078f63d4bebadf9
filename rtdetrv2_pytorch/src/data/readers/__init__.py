"""Readers of data sets: one module per format, one table of formats."""

from .formats import FORMATS, detect_format, read
from .source import DataSource, FormatName, SourceImage, SourceObject

__all__ = [
    "FORMATS",
    "DataSource",
    "FormatName",
    "SourceImage",
    "SourceObject",
    "detect_format",
    "read",
]
