"""Import folders in COCO, YOLO, Pascal VOC, LabelMe or Supervisely format as projects."""
