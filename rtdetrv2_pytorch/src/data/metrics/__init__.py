"""COCO metrics and operating points."""
