"""Finding, downloading and loading weights."""

import hashlib
import io
import json
import pickle
import re
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from torch import nn

from rtdetrv2_pytorch.src.misc import weights
from rtdetrv2_pytorch.src.misc.errors import CheckpointError
from rtdetrv2_pytorch.src.misc.weights import (
    PUBLISHED,
    LoadReport,
    check_available,
    is_url,
    load_checkpoint,
    load_matching,
    load_strict,
    locate,
    model_state,
)
from tests.ranks import free_port


def saved(content, **options) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


CONTENT = saved({"model": {"a": torch.arange(3.0)}})
OTHER = saved({"model": {"a": torch.tensor([5.0, 6.0])}})


class Handler(BaseHTTPRequestHandler):
    """Serves CONTENT, with failures chosen by the file name, and records the requests."""

    def do_GET(self):
        server = self.server
        server.requests.append(self.path)
        kind = Path(self.path).name
        if kind == "missing.pth":
            self.send_error(404)
            return
        self.send_response(200)
        if kind == "chunked.pth":
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"%x\r\n" % len(CONTENT) + CONTENT[:100])
            return  # in the middle of a chunk
        body = OTHER if self.path.startswith("/other/") else CONTENT
        if kind == "portal.pth":
            body = b"<html>please log in</html>"
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if kind in ("cut.pth", "slow.pth"):
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            server.half_sent.set()
            if kind == "cut.pth":
                return
            assert server.resume.wait(20)
            body = body[len(body) // 2 :]
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.requests, server.half_sent = [], threading.Event()
        server.resume = threading.Event()
        server.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.resume.set()
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    """An empty home directory, so that the caches are empty."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("TORCH_HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    return tmp_path


@pytest.fixture
def hub(home) -> Path:
    return home / ".cache" / "torch" / "hub" / "checkpoints"


@pytest.fixture
def supervisely(home) -> Path:
    return home / ".cache" / "supervisely" / "checkpoints"


def put(folder: Path, name: str, content: bytes = CONTENT) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    return folder / name


def weights_in(folder: Path) -> list[str]:
    """Names of complete and partial weight files in a folder."""
    return sorted(f.name for f in folder.iterdir() if f.suffix in (".pth", ".partial"))


# Paths


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("http://x/a.pth", True),
        ("https://x/a.pth", True),
        ("a.pth", False),
        ("/a/b.pth", False),
        (Path("a/b.pth"), False),
        ("C:/a.pth", False),
        ("file:///a.pth", False),
    ],
)
def test_is_url(source, expected):
    assert is_url(source) is expected


def test_locate_expands_home(home):
    path = put(home / "mine", "a.pth")
    assert locate(path) == locate(str(path)) == locate("~/mine/a.pth") == path


@pytest.mark.parametrize(("name", "reason"), [("nowhere.pth", "no such file"), ("", "is a folder")])
def test_locate_rejects_missing_file_and_folder(home, name, reason):
    with pytest.raises(
        CheckpointError,
        match=rf"{home / name}: {reason}; give the path or URL of a checkpoint",
    ):
        locate(home / name)


# URLs


def test_cached_url_is_not_downloaded(server, hub, supervisely):
    one = put(hub, "a.pth")
    assert locate(f"{server.url}/v1/a.pth") == one
    other = put(supervisely, "a.pth")
    assert locate(f"{server.url}/v1/a.pth") == other  # the cache of the image comes first
    assert server.requests == []


def test_download_is_cached_by_name(server, hub):
    url = f"{server.url}/releases/a.pth?raw=1"
    path = locate(url)
    assert path == hub / "a.pth"
    assert path.read_bytes() == CONTENT
    assert weights_in(hub) == ["a.pth"]
    assert locate(url) == path
    assert server.requests == ["/releases/a.pth?raw=1"]


def test_download_uses_supervisely_cache_if_it_exists(server, supervisely, hub):
    supervisely.mkdir(parents=True)
    assert locate(f"{server.url}/a.pth") == supervisely / "a.pth"
    assert not hub.exists()


def test_download_is_invisible_until_complete(server, hub):
    with ThreadPoolExecutor() as pool:
        future = pool.submit(locate, f"{server.url}/slow.pth")
        assert server.half_sent.wait(20)
        assert not (hub / "slow.pth").exists()
        server.resume.set()
        path = future.result(20)
    assert path.read_bytes() == CONTENT


def test_concurrent_calls_share_one_download(server, hub):
    with ThreadPoolExecutor() as pool:
        futures = [pool.submit(locate, f"{server.url}/slow.pth")]
        assert server.half_sent.wait(20)
        futures.append(pool.submit(locate, f"{server.url}/slow.pth"))
        server.resume.set()
        paths = [future.result(20) for future in futures]
    assert paths == [hub / "slow.pth"] * 2
    assert server.requests == ["/slow.pth"]


def test_concurrent_downloads_of_one_name_are_two_files(server, hub):
    """The second one waits for the first, and then does not return its file."""
    with ThreadPoolExecutor() as pool:
        first = pool.submit(locate, f"{server.url}/slow.pth")
        assert server.half_sent.wait(20)
        second = pool.submit(locate, f"{server.url}/other/slow.pth")
        time.sleep(0.2)  # it waits for the lock
        server.resume.set()
        paths = [first.result(20), second.result(20)]
    assert [path.read_bytes() for path in paths] == [CONTENT, OTHER]
    assert paths[0] == hub / "slow.pth"


def test_incomplete_record_of_a_url_is_never_read(server, hub, monkeypatch):
    """Before, a process that read the empty record chose another file name."""
    seen = []

    def write_slowly(path, text, encoding=None):
        with path.open("w", encoding=encoding) as file:
            seen.append(weights._cache_file(f"{server.url}/a.pth"))
            file.write(text)

    monkeypatch.setattr(Path, "write_text", write_slowly)
    locate(f"{server.url}/a.pth")
    assert set(seen) == {hub / "a.pth"}


def test_failed_download_names_the_expected_file(hub):
    url = f"http://127.0.0.1:{free_port()}/a.pth"
    with pytest.raises(
        CheckpointError,
        match=rf"Could not download {url}: .*refused.*put the file at {hub / 'a.pth'}",
    ):
        locate(url)
    path = put(hub, "a.pth")  # as the message says
    assert locate(url) == path


def test_availability_is_checked_without_a_download(server, hub):
    check_available(f"{server.url}/a.pth")
    assert not hub.exists()
    message = rf"Could not download {server.url}/missing.pth: HTTP Error 404.*put the file at {hub}"
    with pytest.raises(CheckpointError, match=message):
        check_available(f"{server.url}/missing.pth")
    put(hub, "missing.pth")
    check_available(f"{server.url}/missing.pth")
    with pytest.raises(CheckpointError, match="no such file"):
        check_available(hub / "b.pth")


@pytest.mark.parametrize("name", ["missing.pth", "cut.pth", "chunked.pth", "portal.pth"])
def test_failed_download_leaves_no_file_and_names_the_file_to_put(server, hub, name):
    reason = "HTTP Error 404.*" if name == "missing.pth" else ".*"
    with pytest.raises(
        CheckpointError,
        match=rf"Could not download {server.url}/{name}: {reason}put the file at {hub / name}",
    ):
        locate(f"{server.url}/{name}")
    assert weights_in(hub) == []


def test_same_file_name_of_two_urls(server):
    one = load_checkpoint(f"{server.url}/one/best.pth")
    other = load_checkpoint(f"{server.url}/other/best.pth")
    assert one["model"]["a"].tolist() == [0, 1, 2]
    assert other["model"]["a"].tolist() == [5, 6]


# SHA-256


def test_first_use_is_recorded_and_a_change_is_rejected(server, hub, caplog):
    caplog.set_level("INFO")
    url = f"{server.url}/a.pth"
    path = locate(url)
    record = hub / "a.pth.sha256"
    digest = hashlib.sha256(CONTENT).hexdigest()
    assert f"{url}: no published SHA-256; recorded {digest} at first use" in caplog.text
    assert record.read_text() == f"{digest}  a.pth\n"
    assert subprocess.run(("sha256sum", "--check", record), cwd=hub, check=False).returncode == 0
    path.write_bytes(OTHER)  # in the cache
    other = hashlib.sha256(OTHER).hexdigest()
    message = f"{path}: its SHA-256 is {other}, at first use it was {digest}.*delete {record}"
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(url)
    path.unlink()
    record.write_text(f"{other}  a.pth\n")  # at the source
    with pytest.raises(CheckpointError, match=f"Could not download {url}: .*is {digest}, at first"):
        locate(url)
    assert weights_in(hub) == []
    record.unlink()  # as the message says
    assert locate(url).read_bytes() == CONTENT


def test_published_digest_is_required_of_downloads_and_cached_files(server, hub, home, monkeypatch):
    published, url = home / "published", f"{server.url}/a.pth"
    monkeypatch.setattr("rtdetrv2_pytorch.src.misc.weights.PUBLISHED", published)
    published.write_text(f"{'0' * 64}  {url}\n")
    with pytest.raises(
        CheckpointError, match=f"Could not download.*published weights is {'0' * 64}"
    ):
        locate(url)
    assert weights_in(hub) == []
    put(hub, "a.pth")
    with pytest.raises(CheckpointError, match=f"{hub / 'a.pth'}: .*delete it to download {url}"):
        locate(url)
    published.write_text(f"{hashlib.sha256(CONTENT).hexdigest()}  {url}\n")
    assert locate(url) == hub / "a.pth"


def test_read_only_cache_is_used_without_a_record(server, supervisely, monkeypatch):
    path = put(supervisely, "a.pth")

    def fail(*_):
        raise PermissionError

    monkeypatch.setattr("rtdetrv2_pytorch.src.misc.weights.write_text", fail)
    assert locate(f"{server.url}/a.pth") == path


def test_published_digests_are_of_models_in_the_table():
    lines = [line.split() for line in PUBLISHED.read_text().splitlines()]
    table = Path("supervisely_integration/models_v2.json")
    models = json.loads((Path(__file__).parents[3] / table).read_text())
    urls = {row["meta"]["model_files"].get("checkpoint") for row in models}
    assert lines
    assert all(re.fullmatch(r"[0-9a-f]{64}", digest) for digest, _ in lines)
    assert {url for _, url in lines} <= urls


# Loading


def test_load_checkpoint_returns_values_on_cpu(home):
    content = {"model": {"w": torch.rand(2, 3)}, "last_epoch": 4, "date": "2026", "lr": [0.1]}
    loaded = load_checkpoint(put(home, "a.pth", saved(content)))
    assert loaded.keys() == content.keys()
    torch.testing.assert_close(loaded["model"]["w"], content["model"]["w"], rtol=0, atol=0)
    assert loaded["model"]["w"].device.type == "cpu"
    assert (loaded["last_epoch"], loaded["date"], loaded["lr"]) == (4, "2026", [0.1])


def test_load_checkpoint_from_url(server):
    loaded = load_checkpoint(f"{server.url}/a.pth")
    assert loaded["model"]["a"].tolist() == [0, 1, 2]


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("kind", ["zip", "before torch 1.6", "pickle"])
def test_file_with_code_is_rejected_without_running_it(home, kind):
    content = {"model": {"a": torch.ones(1)}, "extra": Evil(home / "ran")}
    data = (
        pickle.dumps(content, protocol=2)
        if kind == "pickle"
        else saved(content, _use_new_zipfile_serialization=kind == "zip")
    )
    path = put(home, "evil.pth", data)
    with pytest.raises(
        CheckpointError,
        match=rf"{path}: .*would run code from the file; save its state dict instead",
    ):
        load_checkpoint(path)
    assert not (home / "ran").exists()
    with suppress(RuntimeError):  # a bare pickle fails after its code has run
        torch.load(path, weights_only=False)
    assert (home / "ran").exists()  # weights_only=False runs it


def test_truncated_file_is_rejected(home):
    for length in (4, 100, len(CONTENT) // 2, len(CONTENT) - 1):
        path = put(home, "short.pth", CONTENT[:length])
        with pytest.raises(CheckpointError, match=rf"{path}: damaged or truncated .*download"):
            load_checkpoint(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("zipped", [True, False])
def test_damaged_file_raises_only_checkpoint_errors(home, zipped):
    data = saved({"a": torch.arange(3.0)}, _use_new_zipfile_serialization=zipped)
    escaped = set()
    for length in range(0, len(data), 3):
        path = put(home, "short.pth", data[:length])
        try:
            load_checkpoint(path)
        except CheckpointError:
            continue
        except Exception as error:  # noqa: BLE001 (the test collects them)
            escaped.add(f"{type(error).__name__}: {error}")
    assert not escaped


@pytest.mark.parametrize("data", [b"<html></html>", bytes(200), b"version https://git-lfs.g"])
def test_other_file_type_is_rejected(home, data):
    path = put(home, "other.pth", data)
    with pytest.raises(CheckpointError, match=rf"{path}: .*damaged"):
        load_checkpoint(path)


def test_empty_file_is_rejected(home):
    path = put(home, "empty.pth", b"")
    with pytest.raises(CheckpointError, match="damaged or truncated .*; download it again"):
        load_checkpoint(path)


def test_file_without_dict_is_rejected(home):
    path = put(home, "list.pth", saved([torch.ones(1)]))
    with pytest.raises(CheckpointError, match=rf"{path}: contains a list, not a dict of weights"):
        load_checkpoint(path)


# Selecting weights


def test_model_state_prefers_ema_and_removes_prefix():
    ema, model = {"module.a": torch.ones(1)}, {"a": torch.zeros(1)}
    assert model_state({"ema": {"module": ema, "updates": 3}, "model": model}) == {
        "a": ema["module.a"]
    }
    # Only a prefix is removed.
    inner = {"a.module.b": torch.ones(1)}
    assert model_state({"model": inner}) == inner


@pytest.mark.parametrize("ema", [None, {}, {"module": {}}, {"module": None, "updates": 0}])
def test_model_state_without_ema(ema):
    model = {"a": torch.zeros(1)}
    assert model_state({"ema": ema, "model": model, "last_epoch": 3}) == model


def test_model_state_of_bare_state_dict_ignores_other_values():
    state = {"module.a": torch.ones(1), "epoch": 3}
    assert model_state(state) == {"a": state["module.a"]}


def test_model_state_without_weights_is_rejected():
    with pytest.raises(
        CheckpointError,
        match=r"no weights under 'ema.module' or 'model'; .* contains \['epoch', 'optimizer'\]",
    ):
        model_state({"optimizer": {"state": {}}, "epoch": 3})


# Partial loading


class Toy(nn.Module):
    """A body, a class head, a class embedding with a padding row, and anchors."""

    def __init__(self, num_classes: int, dim: int = 2) -> None:
        super().__init__()
        self.body = nn.Linear(3, dim)
        self.head = nn.Linear(dim, num_classes)
        self.embed = nn.Embedding(num_classes + 1, dim, padding_idx=num_classes)
        self.register_buffer("anchors", torch.rand(4))


CLASS_KEYS = ("head.weight", "head.bias", "embed.weight")


def copied(module):
    return {k: v.clone() for k, v in module.state_dict().items()}


def assert_states_equal(found, expected):
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=0, atol=0, msg=key)


def test_load_matching_reports_every_tensor():
    model, other = Toy(2), Toy(3)
    before, state = copied(model), copied(other) | {"neck.weight": torch.ones(2)}
    report = load_matching(model, state)
    assert report.loaded == ["body.weight", "body.bias"]
    assert report.new == ["head.weight", "head.bias", "embed.weight"]
    assert report.dropped == ["head.weight", "head.bias", "embed.weight", "neck.weight"]
    assert report.carried_classes == []
    taken = {key: state[key] for key in report.loaded}
    assert_states_equal(copied(model), before | taken)  # anchors and the rest are not copied
    assert str(report) == (
        "loaded=2 new=3 dropped=4 new: head.weight, head.bias, embed.weight "
        "dropped: head.weight, head.bias, embed.weight, neck.weight"
    )


def test_load_matching_same_model_keeps_anchors():
    model, other = Toy(2), Toy(2)
    own_anchors = model.anchors.clone()
    report = load_matching(model, copied(other))
    assert_states_equal(copied(model), copied(other) | {"anchors": own_anchors})
    assert (report.new, report.dropped) == ([], [])
    assert str(report) == "loaded=5 new=0 dropped=0"


def test_long_report_is_truncated():
    report = LoadReport(loaded=["x"], new=[f"k{i}" for i in range(9)], carried_classes=["cat"])
    assert str(report) == (
        "loaded=1 new=9 dropped=0 classes_carried_over=1 new: k0, k1, k2, k3, k4, k5, k6, k7, ..."
    )


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        (["cat", "dog"], ["cat", "dog"]),
        (["dog", "cat"], ["cat", "dog"]),  # reordered
        (["owl", "cat", "dog", "bee"], ["cat", "dog"]),  # more
        (["dog"], ["cat", "dog", "owl"]),  # fewer
        (["owl", "cat"], ["cat", "dog"]),  # same number, different classes
    ],
)
def test_class_rows_are_matched_by_name(mine, theirs):
    model, other = Toy(len(mine)), Toy(len(theirs))
    before, state = copied(model), copied(other)
    state["embed.weight"][-1] = 7.0  # padding
    report = load_matching(
        model, state, class_keys=CLASS_KEYS, model_classes=mine, state_classes=theirs
    )
    after = copied(model)
    for key in CLASS_KEYS:
        for row, name in enumerate(mine):
            expected = state[key][theirs.index(name)] if name in theirs else before[key][row]
            torch.testing.assert_close(after[key][row], expected, rtol=0, atol=0)
    assert after["embed.weight"][-1].tolist() == [7.0, 7.0]
    assert report.carried_classes == [name for name in mine if name in theirs]
    assert set(report.loaded) == {"body.weight", "body.bias", *CLASS_KEYS}
    assert f"classes_carried_over={len(report.carried_classes)}" in str(report)


def test_rows_of_other_classes_are_not_copied():
    model, other = Toy(2), Toy(2)
    before = copied(model)
    report = load_matching(
        model,
        copied(other),
        class_keys=CLASS_KEYS,
        model_classes=["cat", "dog"],
        state_classes=["owl", "bee"],
    )
    for key in CLASS_KEYS:
        torch.testing.assert_close(model.state_dict()[key], before[key], rtol=0, atol=0)
    assert set(report.new) == set(report.dropped) == set(CLASS_KEYS)
    assert report.carried_classes == []


@pytest.mark.parametrize("known", ["model_classes", "state_classes"])
def test_unknown_class_names_are_matched_by_shape(known):
    model, other = Toy(2), Toy(2)
    names = {known: ["cat", "dog"]}
    report = load_matching(model, copied(other), class_keys=CLASS_KEYS, **names)
    assert set(report.loaded) == {"body.weight", "body.bias", *CLASS_KEYS}
    torch.testing.assert_close(model.head.weight, other.head.weight, rtol=0, atol=0)


def test_class_rows_of_other_width_are_not_copied():
    model, other = Toy(2, dim=2), Toy(2, dim=4)
    names = {"model_classes": ["cat", "dog"], "state_classes": ["cat", "dog"]}
    report = load_matching(model, copied(other), class_keys=CLASS_KEYS, **names)
    assert report.loaded == ["head.bias"]
    torch.testing.assert_close(model.head.bias, other.head.bias, rtol=0, atol=0)


def test_class_names_that_do_not_match_rows_are_ignored():
    # Three class names, but a head with two rows.
    model, other = Toy(3), Toy(2)
    before = copied(model)
    names = {"model_classes": ["a", "b", "c"], "state_classes": ["a", "b", "c"]}
    report = load_matching(model, copied(other), class_keys=CLASS_KEYS, **names)
    assert set(report.new) == set(CLASS_KEYS)
    torch.testing.assert_close(model.head.weight, before["head.weight"], rtol=0, atol=0)


def test_load_matching_does_not_modify_state():
    model, state = Toy(3), copied(Toy(2))
    before = {k: v.clone() for k, v in state.items()}
    names = {"model_classes": ["a", "b", "c"], "state_classes": ["c", "a"]}
    load_matching(model, state, class_keys=CLASS_KEYS, **names)
    with torch.no_grad():
        model.body.weight.fill_(9)
    assert_states_equal(state, before)


# Strict loading


@pytest.mark.parametrize("size", [4, 9])
def test_load_strict_keeps_anchors(size):
    model, other = Toy(2), Toy(2)
    own = model.anchors.clone()
    load_strict(model, copied(other) | {"anchors": torch.rand(size)}, source="x.pth")
    assert_states_equal(copied(model), copied(other) | {"anchors": own})


def test_load_strict_without_anchors():
    model, other = Toy(2), Toy(2)
    own = model.anchors.clone()
    state = copied(other)
    del state["anchors"]
    load_strict(model, state, source="x.pth")
    assert_states_equal(copied(model), state | {"anchors": own})


def test_load_strict_ignores_num_batches_tracked():
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(2))

    model = Scale()
    state = {"weight": torch.ones(2), "num_batches_tracked": torch.tensor(3)}
    load_strict(model, state, source="x.pth")
    assert model.weight.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"body.bias": None}, r"missing \['body.bias'\], unknown \[\], other shapes \[\]"),
        ({"neck": torch.ones(1)}, r"missing \[\], unknown \['neck'\], other shapes \[\]"),
        ({"body.bias": torch.ones(5)}, r"other shapes \['body.bias \[5\] instead of \[2\]'\]"),
    ],
)
def test_load_strict_rejects_single_difference(change, message):
    model = Toy(2)
    state = {k: v for k, v in (copied(Toy(2)) | change).items() if v is not None}
    with pytest.raises(CheckpointError, match=rf"best.pth contains another model: .*{message}"):
        load_strict(model, state, source="best.pth")


def test_load_strict_rejects_other_model_and_keeps_weights():
    model, state = Toy(2), copied(Toy(3))
    before = copied(model)
    del state["body.bias"]
    state["neck.weight"] = torch.ones(1)
    with pytest.raises(CheckpointError) as caught:
        load_strict(model, state, source="best.pth")
    assert str(caught.value) == (
        "best.pth contains another model: missing ['body.bias'], unknown ['neck.weight'], "
        "other shapes ['head.weight [3, 2] instead of [2, 2]', 'head.bias [3] instead of [2]', "
        "'embed.weight [4, 2] instead of [3, 2]'] (1, 1, 3 in total); "
        "use the configuration of the checkpoint, or fine-tune it instead of resuming"
    )
    assert_states_equal(copied(model), before)
