"""Command lines and ports of an app's processes, as other users of the machine see them."""

import contextlib
import ipaddress
import os
import struct
from pathlib import Path

_LISTENING = "0A"


def processes_of(session: int) -> list[Path]:
    """Return the /proc folders of all processes of a session."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if folder.name.isdigit() and int(fields[3]) == session:
            found.append(folder)
    return found


def command_lines(session: int) -> list[str]:
    """Return the command lines of all processes of a session."""
    found = []
    for folder in processes_of(session):
        with contextlib.suppress(OSError):  # the process has ended
            found.append((folder / "cmdline").read_bytes().decode())
    return found


def listening_addresses(session: int) -> set[str]:
    """Return the addresses that processes of a session listen on."""
    sockets = set()
    for folder in processes_of(session):
        with contextlib.suppress(OSError):  # the process has ended
            handles = list((folder / "fd").iterdir())
            for handle in handles:
                with contextlib.suppress(OSError):
                    sockets.add(os.readlink(handle))  # noqa: PTH115 (the target is not a path)
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTENING and f"socket:[{fields[9]}]" in sockets:
                raw = bytes.fromhex(fields[1].partition(":")[0])
                words = struct.unpack(f"<{len(raw) // 4}I", raw)
                packed = struct.pack(f">{len(words)}I", *words)
                found.add(str(ipaddress.ip_address(packed)))
    return found
