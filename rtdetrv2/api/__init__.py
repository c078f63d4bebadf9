"""The Python API: `from rtdetrv2 import RTDETR, Detections`; see docs/python.md."""
