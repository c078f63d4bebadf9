"""The Supervisely SDK under pytest."""

import importlib
import os
import threading


def import_sdk() -> None:
    """Import the SDK in a separate thread.

    The SDK imports each module on the stack by name. The stack of a pytest-xdist worker starts in a
    module that cannot be imported.
    """
    os.environ.setdefault("SUPERVISELY_SKIP_HTTPS_USER_HELPER_CHECK", "1")
    thread = threading.Thread(target=importlib.import_module, args=("supervisely",))
    thread.start()
    thread.join()
