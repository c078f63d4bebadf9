"""Mark log records that the console does not show."""

import logging

_MARK = "file_only"
FILE_ONLY = {_MARK: True}  # `extra` of a record that the command also prints in another form


def is_file_only(record: logging.LogRecord) -> bool:
    """Return whether a record goes to the log file only."""
    return bool(getattr(record, _MARK, False))
