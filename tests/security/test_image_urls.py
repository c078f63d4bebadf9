"""Image URLs: public addresses only, with limits of size and time, and errors that name the URL."""

import contextlib
import ipaddress
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

import pytest

from rtdetrv2_pytorch.src.data.images import urls
from rtdetrv2_pytorch.src.data.images.urls import NETWORKS_SETTING, download_image, is_allowed
from rtdetrv2_pytorch.src.misc.errors import ConfigError, DatasetError

CONTENT = b"an image"


class Handler(BaseHTTPRequestHandler):
    """Answers by path; `seen` collects the paths of all requests."""

    def do_GET(self):
        self.server.seen.append(self.path)
        if self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", unquote(self.path.removeprefix("/to/")))
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif self.path == "/missing":
            self.send_error(404)
        else:
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                self.answer()

    def answer(self):
        if self.path == "/slow":
            for _ in range(200):
                self.wfile.write(b".")
                time.sleep(0.05)
        elif self.path == "/large":
            self.wfile.write(bytes(5000))
        else:
            self.wfile.write(CONTENT)

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def web():
    """A web server on the loopback address; yields its address and the requests it got."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.seen = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", server.seen
        server.shutdown()


@pytest.fixture
def allowed(monkeypatch):
    monkeypatch.setenv(NETWORKS_SETTING, "10.1.0.0/16, 127.0.0.1")


@pytest.mark.usefixtures("allowed")
def test_file_is_downloaded_also_after_redirects(web):
    address, _ = web
    assert download_image(f"{address}/a.jpg").getvalue() == CONTENT
    assert download_image(f"{address}/to/{address}/to//b.jpg").getvalue() == CONTENT


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "127.1", "2130706433", "[::ffff:7f00:1]"]
)
def test_this_machine_is_not_reached(web, host):
    address, seen = web
    before = len(seen)
    url = address.replace("127.0.0.1", host) + "/secret"
    with pytest.raises(DatasetError) as caught:
        download_image(url)
    assert str(caught.value).startswith(f"{url}: cannot be downloaded (")
    assert f"is not public; allow its network with {NETWORKS_SETTING}=" in str(caught.value)
    assert len(seen) == before


def test_redirects_are_checked(web, monkeypatch):
    address, _ = web
    monkeypatch.setenv(NETWORKS_SETTING, "127.0.0.1")
    for target in ("http://127.0.0.2:1/x", "http://169.254.169.254/latest", "http://[::1]:1/"):
        with pytest.raises(DatasetError, match="is not public"):
            download_image(f"{address}/to/{target}")
    with pytest.raises(DatasetError, match="cannot be downloaded"):
        download_image(f"{address}/to/file:///etc/passwd")


def test_address_is_not_looked_up_again_after_the_check(web, monkeypatch):
    """A name that resolves to a public address first and to this machine then."""
    address, seen = web
    before = len(seen)
    answers = iter(["192.0.0.9", "127.0.0.1", "127.0.0.1"])
    connected = []
    port = int(address.rpartition(":")[2])

    def look_up(host, port, *args, **options):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), port))]

    def connect(where, *args):
        connected.append(where)
        raise ConnectionRefusedError("refused")

    monkeypatch.setattr(urls.socket, "getaddrinfo", look_up)
    monkeypatch.setattr(urls, "create_connection", connect)
    monkeypatch.setenv(NETWORKS_SETTING, "192.0.0.9")
    with pytest.raises(DatasetError, match="refused"):
        download_image(f"http://rebinding.example:{port}/x")
    assert connected == [("192.0.0.9", port)]
    assert len(seen) == before


@pytest.mark.usefixtures("allowed")
def test_limits_of_size_and_time(web, monkeypatch):
    address, _ = web
    monkeypatch.setattr(urls, "MAX_BYTES", 4000)
    with pytest.raises(DatasetError, match=r"/large: cannot be downloaded \(it has more than 4,0"):
        download_image(f"{address}/large")
    start = time.monotonic()
    with pytest.raises(DatasetError, match=r"/slow: was not downloaded within 0\.2 s"):
        download_image(f"{address}/slow", time_limit_s=0.2)
    assert time.monotonic() - start < 5


@pytest.mark.usefixtures("allowed")
def test_failures_name_the_url(web):
    address, _ = web
    for path, reason in (("/missing", "status 404"), (f"/to/{address}" * 7 + "/x", "redirect")):
        with pytest.raises(DatasetError, match=f"{path[:9]}.*cannot be downloaded.*{reason}"):
            download_image(f"{address}{path}")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(DatasetError, match=f"http://127.0.0.1:{port}/x: cannot be downloaded"):
        download_image(f"http://127.0.0.1:{port}/x")


@pytest.mark.parametrize(
    "url",
    [None, 5, 1.5, True, [], ["http://a"], {}, "", "a.jpg", "file:///etc/passwd", "ftp://a/b.jpg"],
)
def test_other_values_are_rejected(url):
    with pytest.raises(DatasetError, match="^image_url = .*: give an address that starts w"):
        download_image(url)


@pytest.mark.parametrize(
    "url",
    ["http://", "http://[", "http://a b/", "http://x:99999999/", "http://\x00/", "http://\ud800/"]
    + [f"http://{'a' * 300}/"],
)
def test_malformed_urls_are_rejected(url):
    with pytest.raises(DatasetError, match="cannot be downloaded"):
        download_image(url)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("8.8.8.8", True),
        ("2001:4860:4860::8888", True),
        ("0.0.0.0", False),
        ("10.0.0.1", False),
        ("100.64.0.1", False),
        ("169.254.169.254", False),
        ("172.16.0.1", False),
        ("192.168.0.1", False),
        ("224.0.0.1", False),
        ("::", False),
        ("::1", False),
        ("fe80::1", False),
        ("fd00::1", False),
        ("::ffff:10.0.0.1", False),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b::808:808", True),
        ("2002:7f00:1::", False),
    ],
)
def test_public_addresses(address, expected):
    assert is_allowed(ipaddress.ip_address(address)) is expected


def test_setting_allows_networks(monkeypatch):
    monkeypatch.setenv(NETWORKS_SETTING, "10.1.0.0/16,fd00::/8")
    allowed = [
        a for a in ("10.1.2.3", "10.2.0.1", "fd00::1") if is_allowed(ipaddress.ip_address(a))
    ]
    assert allowed == ["10.1.2.3", "fd00::1"]
    monkeypatch.setenv(NETWORKS_SETTING, "my network")
    with pytest.raises(ConfigError, match="RTDETR_URL_NETWORKS = 'my network': give networks such"):
        is_allowed(ipaddress.ip_address("8.8.8.8"))
