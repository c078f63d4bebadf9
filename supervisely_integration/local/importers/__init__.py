"""Imports folders in COCO, YOLO, Pascal VOC or Supervisely format as projects."""

from .into_store import import_folder
from .items import read_items

__all__ = ["import_folder", "read_items"]
