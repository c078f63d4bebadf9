"""Makes projects of folders in Supervisely, COCO, YOLO or Pascal VOC format."""

from .formats import detect_format, read
from .into_store import DatasetCount, ImportReport, import_folder
from .source import FormatName, ImportItem, ImportSource, Ledger, Skip

__all__ = [
    "DatasetCount",
    "FormatName",
    "ImportItem",
    "ImportReport",
    "ImportSource",
    "Ledger",
    "Skip",
    "detect_format",
    "import_folder",
    "read",
]
