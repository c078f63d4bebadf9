"""INT8 ONNX files: calibration, the search for layers to keep in float32, export."""
