"""Train RT-DETRv2 on your own boxes, predict and export: the command line and the Python API."""
