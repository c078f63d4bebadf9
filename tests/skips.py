"""Allowed reasons for skipped tests; any other skip fails the run."""

ALLOWED = (
    "no GPU",
    "no TensorRT",
    "no BCCD folder",
    "no Chromium",
    "no glibc",
    "no page libraries",
)


def forbidden_skips(reports) -> list[str]:
    """Return the skipped tests whose reason is not allowed."""
    found = []
    for report in reports:
        reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
        if not reason.removeprefix("Skipped: ").startswith(ALLOWED):
            found.append(f"{report.nodeid}: {reason}")
    return found
