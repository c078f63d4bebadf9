"""Team Files: paths, lists, uploads, downloads, resuming."""

import base64
import hashlib
import tarfile

import httpx
import pytest
import requests
from supervisely._utils import run_coroutine

from supervisely_integration.local.emulator.storage.sql.errors import InvalidRequestError
from supervisely_integration.local.emulator.storage.team_files import normalize

UNUSUAL = "/experiments/3_my [best] project, ver. 1/7_RT-DETRv2/Größe 100% & 日本 'x'.json"


def hash_of(data: bytes) -> str:
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


@pytest.fixture
def upload(api, tmp_path):
    """Upload a string to a path; return the record."""

    def put(remote, text="hello"):
        local = tmp_path / "to_upload.bin"
        local.write_bytes(text.encode())
        return api.file.upload(1, str(local), remote)

    return put


@pytest.fixture
def folder(tmp_path):
    """A folder with files in three levels."""
    files = {
        **{"a.txt": "a", "b [1].json": '{"x": 1}', "sub/c é.pth": "c" * 5000},
        "sub/deep/日本.txt": "deep",
    }
    for name, text in files.items():
        path = tmp_path / "folder" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "folder", files


def paths(records):
    return [each["path"] for each in records]


def test_record(api, instance, upload):
    record = upload("/one/x.json", '{"a": 1}')
    assert (record.path, record.name, record.ext, record.mime) == (
        *("/one/x.json", "x.json", "json", "application/json"),
    )
    assert (record.sizeb, record.hash, record.team_id, record.is_dir) == (
        *(8, hash_of(b'{"a": 1}'), 1, False),
    )
    assert api.file.get_info_by_path(1, "/one/x.json") == record
    assert api.file.get_info_by_id(record.id) == record
    assert record.full_storage_url == f"{instance.address}/file-storage/{record.id}"
    assert api.file.get_json_file_content(1, "/one/x.json") == {"a": 1}
    assert api.file.get_json_file_content(1, "/one/x.json", download=True) == {"a": 1}


def test_browser_download_has_the_file_name(instance, upload):
    record = upload(UNUSUAL)
    headers = {"x-api-key": instance.token}
    answer = httpx.get(record.full_storage_url, params={"download": "1"}, headers=headers)
    assert answer.content == b"hello"
    assert "filename*=utf-8''Gr%C3%B6%C3%9Fe%20100%25" in answer.headers["content-disposition"]
    assert "content-disposition" not in httpx.get(record.full_storage_url, headers=headers).headers


def test_unusual_names(api, upload, tmp_path):
    assert upload(UNUSUAL).path == UNUSUAL
    assert api.file.exists(1, UNUSUAL)
    assert api.file.dir_exists(1, UNUSUAL.rsplit("/", 1)[0] + "/")
    api.file.download(1, UNUSUAL, str(tmp_path / "out"))
    assert (tmp_path / "out").read_text() == "hello"
    api.file.remove(1, UNUSUAL)
    assert not api.file.exists(1, UNUSUAL)


def test_list(api, upload):
    for path in ("/list/a.txt", "/list/b/c.txt", "/list/b/d/e.txt", "/list2/f.txt", "/lis_/g"):
        upload(path)
    inside = ["/list/a.txt", "/list/b/c.txt", "/list/b/d/e.txt"]
    assert paths(api.file.list(1, "/list")) == inside  # not /list2
    assert paths(api.file.list(1, "//list//")) == inside
    assert paths(api.file.list(1, "/list/a.txt")) == ["/list/a.txt"]
    assert paths(api.file.list(1, "/lis")) == []
    assert paths(api.file.list(1, "/no such")) == []
    children = api.file.list(1, "/list", recursive=False)
    assert [(each["path"], each["isDir"]) for each in children] == [
        ("/list/a.txt", False),
        ("/list/b/", True),
    ]
    assert children[1]["meta"]["size"] == 10
    assert {"/list/", "/list2/", "/lis_/"} <= set(paths(api.file.list(1, "/", recursive=False)))
    assert api.file.listdir(1, "/list/b") == ["/list/b/c.txt", "/list/b/d/"]
    assert api.file.get_directory_size(1, "/list") == 15


def test_list_v2(api, upload):
    for name in ("a", "b", "c/d", "c/e"):
        upload(f"/v2/{name}")
    everything = api.storage.list(1, "/v2", recursive=False)
    assert [(each.path, each.is_dir) for each in everything] == [
        ("/v2/a", False),
        ("/v2/b", False),
        ("/v2/c/", True),
    ]
    files = api.storage.list(1, "/v2", include_folders=False)
    assert [each.path for each in files] == ["/v2/a", "/v2/b", "/v2/c/d", "/v2/c/e"]
    folders = api.storage.list(1, "/v2", recursive=False, include_files=False)
    assert [each.path for each in folders] == ["/v2/c/"]
    assert len(api.storage.list(1, "/v2", limit=3)) == 3
    body = {"teamId": 1, "path": "/v2/", "recursive": True, "limit": 3}
    first = api.post("file-storage.v2.list", body).json()
    body["continuationToken"] = first["continuationToken"]
    second = api.post("file-storage.v2.list", body).json()
    assert paths(first["entities"] + second["entities"]) == [each.path for each in files]
    assert second["continuationToken"] is None
    assert api.storage.exists(1, "/v2/a")
    assert api.storage.dir_exists(1, "/v2/c")
    assert not api.storage.dir_exists(1, "/v2/a")


def test_replace(api, instance, upload):
    first = upload("/replaced", "old contents of mine")
    old = instance.store.files.contents({"hash": first.hash})
    second = upload("/replaced", "new")
    assert (second.id, second.sizeb) == (first.id, 3)
    assert paths(api.file.list(1, "/replaced")) == ["/replaced"]
    assert not old.exists()  # checkpoints are large


def test_shared_contents_are_removed_with_the_last_path(api, instance, upload):
    record = upload("/shared/1", "the same contents")
    upload("/shared/2", "the same contents")
    contents = instance.store.files.contents({"hash": record.hash})
    api.file.remove(1, "/shared/1")
    assert contents.read_text() == "the same contents"
    api.file.remove(1, "/shared/2")
    assert not contents.exists()


def test_remove(api, upload):
    for path in ("/rm/a", "/rm/b/c", "/rm/b/d", "/rmx"):
        upload(path)
    api.file.remove_dir(1, "/rm/b/")
    assert paths(api.file.list(1, "/rm")) == ["/rm/a"]
    api.file.remove_batch(1, ["/rm/a", "/rmx"])
    assert not api.file.dir_exists(1, "/rm/")
    api.file.remove(1, "/was never there")
    with pytest.raises(ValueError, match="Folder not found"):
        api.file.remove_dir(1, "/rm/")


def test_free_names(api, upload):
    upload("/free/x.txt")
    assert api.file.get_free_name(1, "/free/x.txt") == "/free/x_000.txt"
    assert api.file.get_free_dir_name(1, "/free") == "/free_000"


@pytest.mark.parametrize("way", ["upload_directory", "upload_directory_fast"])
def test_folder_round_trip(api, folder, tmp_path, way):
    local, files = folder
    target = f"/folders/{way} [ü]"
    progress = []
    kwargs = {"progress_size_cb" if way == "upload_directory" else "progress_cb": progress.append}
    assert getattr(api.file, way)(1, str(local), target, **kwargs) == target
    assert paths(api.file.list(1, target)) == sorted(f"{target}/{name}" for name in files)
    if way == "upload_directory_fast":
        assert sum(progress) == sum(len(text.encode()) for text in files.values())
    again = getattr(api.file, way)(1, str(local), target)
    assert again == f"{target}_000"
    api.file.download_directory(1, target, str(tmp_path / "sync"))
    run_coroutine(
        api.file.download_directory_async(1, target, str(tmp_path / "async"), show_progress=False)
    )
    for down in ("sync", "async"):
        got = {
            str(path.relative_to(tmp_path / down)): path.read_text()
            for path in (tmp_path / down).rglob("*")
            if path.is_file()
        }
        assert got == files


def test_bulk_uploads(api, folder):
    local, files = folder
    sources = [str(local / name) for name in files]
    for way in ("upload_bulk", "upload_bulk_fast"):
        targets = [f"/bulk//{way}/{name}" for name in files]
        getattr(api.file, way)(1, sources, targets)
        found = api.file.list(1, f"/bulk/{way}/")
        assert {each["path"]: each["hash"] for each in found} == {
            f"/bulk/{way}/{name}": hash_of(text.encode()) for name, text in files.items()
        }


def test_resumed_upload_skips_existing_files(api, instance, folder):
    local, files = folder
    api.file.upload(1, str(local / "sub/c é.pth"), "/resume/sub/c é.pth")
    (local / "other").write_text("wrong")
    api.file.upload(1, str(local / "other"), "/resume/a.txt")
    before = {each["path"]: each["updatedAt"] for each in api.file.list(1, "/resume")}
    progress = []
    api.file.upload_directory_fast(
        *(1, str(local), "/resume"),
        change_name_if_conflict=False,
        replace_if_conflict=True,
        enable_fallback=False,
        skip_existing_by_hash=True,
        progress_cb=progress.append,
    )
    after = {each["path"]: each for each in api.file.list(1, "/resume")}
    assert after["/resume/sub/c é.pth"]["updatedAt"] == before["/resume/sub/c é.pth"]
    assert after["/resume/a.txt"]["hash"] == hash_of(b"a")
    assert len(after) == len(files) + 1


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/a//b/", "/a/b"),
        ("a/b", "/a/b"),
        ("//", "/"),
        ("/a/./b", "/a/b"),
        ("/a/../b", "/b"),
        ("/a/b/../../c", "/c"),
        ("/..a/b..", "/..a/b.."),
    ],
)
def test_normalize(path, expected):
    assert normalize(path) == expected


ESCAPES = ["/..", "/../x", "..", "/a/../../x", "/a/../../../etc/passwd", "", "/x\0y"]


@pytest.mark.parametrize("path", ESCAPES)
def test_normalize_rejects_paths_outside(path):
    with pytest.raises(InvalidRequestError, match="outside of Team Files|is not a path"):
        normalize(path)


@pytest.mark.parametrize("path", ESCAPES[:5])
def test_methods_reject_paths_outside(api, instance, path, tmp_path):
    local = tmp_path / "evil file"
    local.write_text("evil")
    calls = [
        lambda: api.post("file-storage.list", {"teamId": 1, "path": path, "recursive": True}),
        lambda: api.post("file-storage.download", {"teamId": 1, "path": path}),
        lambda: api.post("file-storage.remove", {"teamId": 1, "path": path}),
        lambda: api.file.upload(1, str(local), f"{path}/evil file"),
        lambda: run_coroutine(
            api.file.upload_bulk_async(
                1, [str(local)], [f"{path}/evil file"], enable_fallback=False
            )
        ),
    ]
    for call in calls:
        # The SDK itself fails to read the error of a streamed call.
        with pytest.raises((requests.HTTPError, httpx.ResponseNotRead)):
            call()
    assert "evil" not in str(instance.store.files.entries(1, "/"))


def test_teams_are_isolated(api, instance, upload, tmp_path):
    upload("/mine", "secret of team 1")
    other = instance.store.teams.create("other")
    assert api.file.list(other, "/") == []
    for path in ("/mine", "/../1/mine"):
        with pytest.raises(requests.HTTPError):
            api.file.download(other, path, str(tmp_path / "out"))


def test_file_and_folder_conflict(api, upload):
    upload("/mix/file")
    with pytest.raises(requests.HTTPError, match="/mix is a folder; use another file name"):
        upload("/mix")
    with pytest.raises(requests.HTTPError, match="/mix/file is a file, not a folder"):
        upload("/mix/file/inside")


def test_missing_file_is_reported(api, tmp_path):
    with pytest.raises(requests.HTTPError, match="file '/absent' does not exist"):
        api.file.download(1, "/absent", str(tmp_path / "out"))
    assert api.file.get_info_by_path(1, "/absent") is None


def test_a_team_that_does_not_exist(upload, api, tmp_path):
    local = tmp_path / "x"
    local.write_text("x")
    with pytest.raises(requests.HTTPError, match="team 999 does not exist"):
        api.file.upload(999, str(local), "/x")


def test_a_folder_as_an_archive_keeps_long_names(api, upload, tmp_path):
    name = "n" * 150 + "é"
    upload(f"/tar/{name}/{name}", "x" * 1000)
    api.file._download(1, "/tar/", str(tmp_path / "all.tar"))
    with tarfile.open(tmp_path / "all.tar") as archive:
        assert archive.getnames() == [f"tar/{name}/{name}"]
        member = archive.extractfile(archive.getnames()[0])
        assert member.read() == b"x" * 1000
