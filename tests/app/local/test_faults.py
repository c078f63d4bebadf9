"""Injected faults reach clients; the SDK retries failed requests."""

import hashlib
import time

import httpx
import pytest

from tests.faulty_instance import Fault, FaultyInstance

TEXT = bytes(range(256)) * 16


@pytest.fixture
def running(tmp_path):
    with FaultyInstance(tmp_path / "root") as instance:
        instance.store.files.put_path(1, "/a.bin", TEXT)
        yield instance
        instance.faults.replace([])


@pytest.fixture
def call(running):
    with httpx.Client(
        base_url=f"{running.address}/public/api/v3", headers={"x-api-key": running.token}
    ) as client:
        yield lambda method, **body: client.post(f"/{method}", json=body)


DOWNLOAD = {"teamId": 1, "path": "/a.bin"}


def test_error_fault_is_repeated(running, call):
    running.faults.replace([Fault("error", "users.*", times=2, status=502)])
    assert [call("users.me").status_code for _ in range(3)] == [502, 502, 200]
    assert call("teams.list").status_code == 200
    assert running.faults.injected == {"error users.me": 2}


def test_lost_request_is_processed(running, call):
    running.faults.replace([Fault("lost", "workspaces.add")])
    assert call("workspaces.add", teamId=1, name="new").status_code == 503
    names = [w["name"] for w in call("workspaces.list", teamId=1).json()["entities"]]
    assert "new" in names


def test_cut_response_is_incomplete(running, call):
    running.faults.replace([Fault("cut", "file-storage.download")])
    with pytest.raises(httpx.RemoteProtocolError, match="incomplete|without"):
        call("file-storage.download", **DOWNLOAD)
    assert call("file-storage.download", **DOWNLOAD).content == TEXT


def test_damaged_response_does_not_match_its_hash(running, call):
    running.faults.replace([Fault("damage", "file-storage.download")])
    damaged = call("file-storage.download", **DOWNLOAD)
    good = call("file-storage.download", **DOWNLOAD)
    assert len(damaged.content) == len(TEXT)
    assert sum(a != b for a, b in zip(damaged.content, TEXT, strict=True)) == 1
    name = "x-content-checksum-sha256"
    assert damaged.headers[name] == good.headers[name]
    assert hashlib.sha256(damaged.content).digest() != hashlib.sha256(TEXT).digest()


def test_slow_fault_delays_the_response(running, call):
    running.faults.replace([Fault("slow", "users.me", seconds=0.4)])
    started = time.monotonic()
    assert call("users.me").json()["login"] == "local"
    assert time.monotonic() - started >= 0.4


def test_server_returns_after_an_outage(running, call):
    address = running.address
    running.faults.replace([Fault("gone", "users.me", seconds=1.5)])
    with pytest.raises(httpx.TransportError):
        call("users.me")
    deadline = time.monotonic() + 20
    refused = 0
    while time.monotonic() < deadline:
        try:
            answer = call("file-storage.download", **DOWNLOAD)
        except httpx.ConnectError:
            refused += 1
            time.sleep(0.1)
            continue
        assert answer.content == TEXT
        break
    assert refused >= 3
    assert running.address == address


def test_server_stops_during_an_outage(tmp_path):
    with (
        FaultyInstance(tmp_path / "root", faults=[Fault("gone", seconds=500)]) as instance,
        pytest.raises(httpx.TransportError),
    ):
        headers = {"x-api-key": instance.token}
        httpx.post(f"{instance.address}/public/api/v3/users.me", headers=headers)
    assert instance._thread is None


def test_sdk_retries_failed_requests(running, monkeypatch):
    for name in ("SUPERVISELY_PUBLIC_API_RETRIES", "SUPERVISELY_PUBLIC_API_RETRY_SLEEP_SEC"):
        monkeypatch.delenv(name, raising=False)
    api = running.api()
    api.retry_sleep_sec = 0
    running.faults.replace([Fault("error", "users.me", times=3), Fault("cut", "teams.list")])
    assert api.user.get_my_info().login == "local"
    assert [team.id for team in api.team.get_list()] == [1]
    assert sum(running.faults.injected.values()) == 4
