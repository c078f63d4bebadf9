"""Ranges, large bodies, concurrent clients, a killed server."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import supervisely as sly

from supervisely_integration.local.emulator.store import Store
from supervisely_integration.local.instance import LocalInstance

ROOT = Path(__file__).parents[3]
MIB = 1 << 20


@pytest.fixture
def client(instance):
    with httpx.Client(
        base_url=f"{instance.address}/public/api/v3",
        headers={"x-api-key": instance.token},
        timeout=240,
    ) as client:
        yield client


class Server:
    """A server process on a data folder."""

    def __init__(self, root):
        self.root = root
        command = [sys.executable, "-m", "supervisely_integration.local", "up"]
        self.process = subprocess.Popen(
            [*command, "--root", str(root), "--port", "0"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )

    def connect(self):
        lines = [self.process.stdout.readline() for _ in range(3)]
        self.address, self.token = (line.split()[1] for line in lines[:2])
        assert lines[2].split() == ["page", f"{self.address}/?token={self.token}"]

    @property
    def api(self):
        """A client with the settings of the test, which disable retries."""
        return sly.Api(self.address, self.token)


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    """Two server processes on one data folder; the last test kills the first one."""
    root = tmp_path_factory.mktemp("servers") / "root"
    started = [Server(root) for _ in range(2)]
    for server in started:
        server.connect()
    yield started
    for server in started:
        server.process.kill()
        server.process.wait()
        server.process.stdout.close()


DATA = bytes(range(256)) * 10


@pytest.mark.parametrize(
    ("wanted", "status", "expected"),
    [
        (None, 200, DATA),
        ("bytes=0-", 206, DATA),
        ("bytes=10-19", 206, DATA[10:20]),
        ("bytes=2500-", 206, DATA[2500:]),
        ("bytes=2500-99999", 206, DATA[2500:]),
        ("bytes=-5", 206, DATA[-5:]),
        ("bytes=-99999", 206, DATA),
        ("bytes=-", 200, DATA),  # the SDK's form of "from 0 to the end"
        ("bytes=1-2,5-6", 200, DATA),
        ("lines=1-2", 200, DATA),
        ("bytes=2560-", 416, b""),
        ("bytes=20-10", 400, b"Range header: start must be less than end"),
    ],
)
def test_ranges(instance, client, wanted, status, expected):
    record = instance.store.files.put_path(1, "/range.bin", DATA)
    answer = client.post(
        "/file-storage.download",
        json={"teamId": 1, "path": "/range.bin"},
        headers={"Range": wanted} if wanted else {},
    )
    assert (answer.status_code, answer.content) == (status, expected)
    if status >= 400:
        assert status == 400 or answer.headers["content-range"] == "bytes */2560"
        return
    assert answer.headers["content-length"] == str(len(expected))
    assert answer.headers["x-content-checksum-sha256"] == record["hash"]
    if status == 206:
        first = 2560 - len(expected) if wanted[6] == "-" else int(wanted[6:].split("-")[0])
        last = first + len(expected) - 1
        assert answer.headers["content-range"] == f"bytes {first}-{last}/2560"


def test_ranges_of_images_and_empty_files(instance, client, api, dataset, array, png):
    image = api.image.upload_np(dataset.id, "a.png", array(3))
    answer = client.post("/images.download", json={"id": image.id}, headers={"Range": "bytes=1-3"})
    assert (answer.status_code, answer.content) == (206, b"PNG")
    instance.store.files.put_path(1, "/empty", b"")
    answer = client.post("/file-storage.download", json={"teamId": 1, "path": "/empty"})
    assert (answer.status_code, answer.content) == (200, b"")


def test_aborted_upload_is_not_stored(instance, client):
    def half():
        yield b"first half"
        raise ConnectionAbortedError

    with pytest.raises(ConnectionAbortedError):
        client.post("/file-storage.upload", params={"teamId": 1, "path": "/half"}, content=half())
    time.sleep(0.2)
    assert instance.store.files.entries(1, "/half") == []
    incoming = instance.store.root / "blobs" / "incoming"
    deadline = time.monotonic() + 5
    while list(incoming.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert list(incoming.iterdir()) == []


def peak_mib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) >> 10


def chunks(mib):
    for number in range(mib):
        yield bytes([number % 256]) * MIB


@pytest.mark.slow
def test_large_bodies_need_little_memory(servers, tmp_path):
    process, api = servers[1].process, servers[1].api
    headers = {"x-api-key": api.token}
    base = f"{api.server_address}/public/api/v3"
    api.team.get_list()
    before = peak_mib(process.pid)
    answer = httpx.post(
        f"{base}/file-storage.upload",
        params={"teamId": 1, "path": "/large.bin"},
        content=chunks(150),
        headers=headers,
        timeout=240,
    )
    assert answer.json()["size"] == 150 * MIB
    large = tmp_path / "large.bin"
    with large.open("wb") as file:
        file.writelines(chunks(60))
    api.file.upload(1, str(large), "/multipart.bin")
    body = {"teamId": 1, "path": "/large.bin"}
    with httpx.stream(
        "POST", f"{base}/file-storage.download", json=body, headers=headers
    ) as answer:
        assert sum(len(chunk) for chunk in answer.iter_raw()) == 150 * MIB
    api.file.download(1, "/multipart.bin", str(tmp_path / "back.bin"))
    assert (tmp_path / "back.bin").read_bytes() == large.read_bytes()
    assert peak_mib(process.pid) - before < 40


def test_concurrent_clients(instance, tmp_path, png):
    meta = sly.ProjectMeta([sly.ObjClass("c", sly.Rectangle)])
    boss = instance.api()
    project = boss.project.create(1, "eight", change_name_if_conflict=True)
    meta = boss.project.update_meta(project.id, meta)
    barrier = threading.Barrier(8)

    def work(number):
        api = instance.api()
        dataset = api.dataset.create(project.id, f"ds{number}")
        barrier.wait()
        for round_ in range(5):
            path = tmp_path / f"{number}_{round_}.png"
            path.write_bytes(png(round_))  # equal contents from all clients
            image = api.image.upload_path(dataset.id, path.name, str(path))
            label = sly.Label(sly.Rectangle(0, 0, number, round_), meta.get_obj_class("c"))
            api.annotation.upload_ann(image.id, sly.Annotation((20, 30), [label]))
            api.file.upload(1, str(path), f"/eight/{number}/{path.name}")
            api.file.upload(1, str(path), "/eight/contested.png")
        return dataset.id

    with ThreadPoolExecutor(8) as pool:
        datasets = list(pool.map(work, range(8)))
    assert boss.project.get_info_by_id(project.id).items_count == 40
    assert boss.project.get_stats(project.id)["objects"]["items"][0]["total"] == 40
    assert len(boss.file.list(1, "/eight")) == 41
    for number, dataset_id in enumerate(datasets):
        for round_, image in enumerate(boss.image.get_list(dataset_id)):
            (object_,) = boss.annotation.download_json(image.id)["objects"]
            assert object_["points"]["exterior"] == [[0, 0], [round_, number]]
            assert boss.image.download_bytes(dataset_id, [image.id]) == [png(round_)]


def test_two_servers_share_a_root(servers):
    one, two = (server.api for server in servers)
    assert one.token == two.token
    project = one.project.create(1, "from one")
    assert two.project.get_info_by_name(1, "from one").id == project.id
    names = [f"p{number}" for number in range(10)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda name: (one, two)[int(name[1]) % 2].project.create(1, name), names))
    assert {each.name for each in one.project.get_list(1)} == {"from one", *names}


def test_killed_server_keeps_acknowledged_changes(servers, tmp_path, png):
    process, api = servers[0].process, servers[0].api
    project = api.project.create(1, "kept")
    meta = api.project.update_meta(project.id, sly.ProjectMeta([sly.ObjClass("c", sly.Rectangle)]))
    dataset = api.dataset.create(project.id, "ds")
    path = tmp_path / "x.png"
    path.write_bytes(png(5))
    uploaded, done = [], threading.Event()

    def upload_until_it_dies():
        for number in range(10_000):
            try:
                image = api.image.upload_path(dataset.id, f"{number}.png", str(path))
                label = sly.Label(sly.Rectangle(0, 0, 5, 5), meta.get_obj_class("c"))
                api.annotation.upload_ann(image.id, sly.Annotation((20, 30), [label]))
                text = tmp_path / "t"
                text.write_text(f"text {number}")
                api.file.upload(1, str(text), f"/kept/{number}.txt")
            except Exception:  # noqa: BLE001 - the connection may end in any way
                break
            uploaded.append((number, image.id))
        done.set()

    thread = threading.Thread(target=upload_until_it_dies, daemon=True)
    thread.start()
    while len(uploaded) < 10:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert done.wait(240)

    store = Store(servers[0].root)
    for number, image_id in uploaded:
        contents, info = store.images.contents(image_id)
        assert (info["name"], contents.read_bytes()) == (f"{number}.png", png(5))
        assert len(store.annotations.get([image_id])[0]["annotation"]["objects"]) == 1
        record = store.files.info_by_path(1, f"/kept/{number}.txt")
        assert store.files.contents(record).read_text() == f"text {number}"
    store.close()
    other = servers[1]
    assert other.api.project.get_info_by_id(project.id).items_count >= len(uploaded)
    other.process.send_signal(signal.SIGTERM)
    assert other.process.wait(10) in (0, -signal.SIGTERM)
    with LocalInstance(servers[0].root) as restarted:  # also after the kill
        assert restarted.token == api.token
        assert restarted.api().project.get_info_by_id(project.id).items_count >= len(uploaded)
