"""Detect objects with a TensorRT engine; needs this repository, TensorRT and an NVIDIA GPU.

    python demo/demo_tensorrt.py image.jpg folder_of_images --threshold 0.4

An engine runs on the GPU model and TensorRT version that built it. Its model card is the file
`<engine>.json` next to it.
"""

from demo_common import parse_arguments
from demo_pytorch import run

if __name__ == "__main__":
    run(parse_arguments("Detect objects with TensorRT.", "export/*.engine", "cuda"), "tensorrt")
