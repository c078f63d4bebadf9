"""Conversions of exported ONNX graphs: half precision, sampling without GridSample."""
