"""The Supervisely SDK under pytest."""

import importlib
import os
import threading


def import_sdk() -> None:
    """Import it in a thread of its own.

    On import it imports again every module on the stack, by name; the stack of a worker of
    pytest-xdist begins in a module that cannot be imported.
    """
    os.environ.setdefault("SUPERVISELY_SKIP_HTTPS_USER_HELPER_CHECK", "1")
    thread = threading.Thread(target=importlib.import_module, args=("supervisely",))
    thread.start()
    thread.join()
