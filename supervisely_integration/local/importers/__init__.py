"""Makes projects of folders in Supervisely, COCO, YOLO or Pascal VOC format."""

from .formats import detect_format, read
from .into_store import import_folder
from .source import FormatName

__all__ = ["FormatName", "detect_format", "import_folder", "read"]
