"""The commands, one module each; see `rtdetrv2.cli`."""

import sys
from importlib.util import find_spec

# Before any other import, so that a wrong Python gets one sentence instead of a traceback. This
# file must be valid in old versions, too.
_missing = [name for name in ("torch", "click", "rich", "yaml") if find_spec(name) is None]
if sys.version_info < (3, 11) or _missing:
    _lacks = " without " + ", ".join(_missing) if _missing else ""
    raise SystemExit(
        f"{sys.executable} is Python {sys.version_info[0]}.{sys.version_info[1]}{_lacks}. Use "
        "Python 3.11 or 3.12 with the packages of requirements.txt: run `make install` once, then "
        "`source .venv/bin/activate`."
    )
