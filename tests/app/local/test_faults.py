"""The instance fails as it is told to, and the SDK's own retries meet what they would meet."""

import hashlib
import time

import httpx
import pytest

from supervisely_integration.local.emulator.faults import KINDS, Fault, Faults
from supervisely_integration.local.emulator.storage.errors import InvalidRequestError
from supervisely_integration.local.instance import LocalInstance

TEXT = bytes(range(256)) * 16


@pytest.fixture
def running(tmp_path):
    with LocalInstance(tmp_path / "root") as instance:
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


def test_an_error_comes_as_often_as_it_was_asked_for(running, call):
    running.faults.replace([Fault("error", "users.*", times=2, status=502)])
    assert [call("users.me").status_code for _ in range(3)] == [502, 502, 200]
    assert call("teams.list").status_code == 200
    assert running.faults.injected == {"error users.me": 2}


def test_a_lost_answer_is_of_something_that_was_done(running, call):
    running.faults.replace([Fault("lost", "workspaces.add")])
    assert call("workspaces.add", teamId=1, name="new").status_code == 503
    names = [w["name"] for w in call("workspaces.list", teamId=1).json()["entities"]]
    assert "new" in names


def test_a_cut_answer_ends_in_the_middle(running, call):
    running.faults.replace([Fault("cut", "file-storage.download")])
    with pytest.raises(httpx.RemoteProtocolError, match="incomplete|without"):
        call("file-storage.download", **DOWNLOAD)
    assert call("file-storage.download", **DOWNLOAD).content == TEXT


def test_a_damaged_answer_is_as_long_and_says_another_hash(running, call):
    running.faults.replace([Fault("damage", "file-storage.download")])
    damaged = call("file-storage.download", **DOWNLOAD)
    good = call("file-storage.download", **DOWNLOAD)
    assert len(damaged.content) == len(TEXT)
    assert sum(a != b for a, b in zip(damaged.content, TEXT, strict=True)) == 1
    name = "x-content-checksum-sha256"
    assert damaged.headers[name] == good.headers[name]
    assert hashlib.sha256(damaged.content).digest() != hashlib.sha256(TEXT).digest()


def test_a_slow_answer_is_the_right_one(running, call):
    running.faults.replace([Fault("slow", "users.me", seconds=0.4)])
    started = time.monotonic()
    assert call("users.me").json()["login"] == "local"
    assert time.monotonic() - started >= 0.4


def test_gone_nobody_listens_and_then_everything_is_as_before(running, call):
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


def test_an_instance_can_be_stopped_while_it_is_gone(tmp_path):
    with (
        LocalInstance(tmp_path / "root", faults=[Fault("gone", seconds=500)]) as instance,
        pytest.raises(httpx.TransportError),
    ):
        headers = {"x-api-key": instance.token}
        httpx.post(f"{instance.address}/public/api/v3/users.me", headers=headers)
    assert instance._thread is None


def test_the_sdk_tries_again(running, monkeypatch):
    for name in ("SUPERVISELY_PUBLIC_API_RETRIES", "SUPERVISELY_PUBLIC_API_RETRY_SLEEP_SEC"):
        monkeypatch.delenv(name, raising=False)
    api = running.api()
    api.retry_sleep_sec = 0
    running.faults.replace([Fault("error", "users.me", times=3), Fault("cut", "teams.list")])
    assert api.user.get_my_info().login == "local"
    assert [team.id for team in api.team.get_list()] == [1]
    assert sum(running.faults.injected.values()) == 4


def test_faults_are_switched_with_the_token_only(running, call):
    body = {"faults": [{"kind": "error", "method": "users.me", "times": 1}]}
    refused = httpx.post(f"{running.address}/public/api/v3/local.faults", json=body)
    assert refused.status_code == 401
    assert call("users.me").status_code == 200
    assert call("local.faults", **body).json() == {"injected": {}}
    assert call("users.me").status_code == 503
    assert call("local.faults").json() == {"injected": {"error users.me": 1}}
    assert call("local.faults", faults=[]).status_code == 200


@pytest.mark.parametrize(
    "entry",
    [
        {"kind": "flood"},
        {"method": "a"},
        5,
        {"kind": "error", "x": 1},
        {"kind": "error", "times": 0},
        {"kind": "slow", "seconds": 1e9},
        {"kind": "error", "status": 200},
        {"kind": "error", "times": "many"},
    ],
)
def test_faults_that_make_no_sense_are_refused(call, entry):
    assert call("local.faults", faults=[entry]).status_code == 400


def test_faults_of_the_command_line():
    assert Fault.parse("error") == Fault("error")
    assert Fault.parse("slow:images.*:3:0.5") == Fault("slow", "images.*", 3, 0.5)
    for text in ("flood", "error:a:many", "error:a:1:x", "error:a:1:1:500"):
        with pytest.raises(InvalidRequestError, match="there are error|for example"):
            Fault.parse(text)
    assert Faults([Fault(kind) for kind in KINDS]).take("x") == Fault("error")
