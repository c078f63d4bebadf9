"""Host names: of this machine, and of the platform behind an app."""

import ipaddress
from urllib.parse import urlsplit


def host_of(address: str) -> str:
    """Return the host name of an address or a Host header, in lower case; "" if it has none."""
    try:
        return urlsplit(address if "//" in address else f"//{address}").hostname or ""
    except ValueError:  # such as "[::1"
        return ""


def authority_of(origin: str) -> str:
    """Return host and port of an Origin header, in lower case; "" for the origin "null"."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def is_ip_address(host: str) -> bool:
    """Return whether a host is an IP address and no name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_local(server_address: str) -> bool:
    """Return whether an instance runs on this machine, as the embedded one does."""
    host = host_of(server_address)
    if is_ip_address(host):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost" or host.endswith(".localhost")
