"""Import folders in COCO, YOLO, Pascal VOC or Supervisely format as projects."""
