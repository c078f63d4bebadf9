"""How a line of the log says that it is for the file only."""

import logging

_MARK = "is_for_file"
FOR_FILE = {_MARK: True}  # extra of a line that the command tells people in its own way


def is_for_file(record: logging.LogRecord) -> bool:
    """Whether people do not see a line, unless they look into the file."""
    return bool(getattr(record, _MARK, False))
