"""The serving app: its page, and the commands `deploy` and `predict`."""

import sys

if __name__ == "__main__":
    import rtdetrv2.commands  # noqa: F401 (checks the Python version and the packages first)
    from supervisely_integration.serve.command import group

    sys.exit(group())

from supervisely_integration.serve.rtdetrv2 import RTDETRv2

model = RTDETRv2(use_gui=True, use_serving_gui_template=True)
model.serve()
