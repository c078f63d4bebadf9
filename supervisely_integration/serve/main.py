"""The serving app: its page, and the commands `deploy` and `predict`."""

import sys

from rtdetrv2_pytorch.src.misc.errors import RTDETRError
from rtdetrv2_pytorch.tools.console import print_error
from supervisely_integration.sdk.deployment import is_command_line
from supervisely_integration.serve.rtdetrv2 import RTDETRv2

try:
    model = RTDETRv2(use_gui=True, use_serving_gui_template=True)
    model.serve()
except (RTDETRError, OSError, ValueError, RuntimeError) as error:
    if not is_command_line():
        raise
    print_error(type(error).__name__, str(error))
    sys.exit(1)
