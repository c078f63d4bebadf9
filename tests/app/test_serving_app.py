"""The serving app with the real SDK and a local instance."""

import json
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
import requests
import torch
from PIL import Image
from supervisely.nn.inference.cache import InferenceImageCache

from rtdetrv2_pytorch.src.data.digits import make_digits_dataset
from rtdetrv2_pytorch.src.data.images.decoding import read_rgb
from rtdetrv2_pytorch.src.deploy.predictor import Predictor
from rtdetrv2_pytorch.src.deploy.runtimes import open_runtime
from rtdetrv2_pytorch.src.solver import DetSolver
from supervisely_integration.local.emulator.store import TEAM_ID
from supervisely_integration.paths import PACKAGE, ROOT, SERVE
from supervisely_integration.sdk.inference import ImageCache
from supervisely_integration.serve.rtdetrv2 import to_predictions, whole_pixels
from tests.app.real_app import RunningApp, make_project
from tests.damaged_datasets import png_header
from tests.ranks import free_port
from tests.tiny import tiny_config

ARTIFACTS = "/experiments/1_digits/7_RT-DETRv2"
BEST = f"{ARTIFACTS}/checkpoints/best.pth"
OUTSIDE = {"outside_request": True}
EVERYTHING = {"confidence_threshold": 0.0}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A tiny network, trained briefly on digits; its input is not square."""
    folder = tmp_path_factory.mktemp("serving")
    data = make_digits_dataset(folder / "data", num_train=8, num_val=4)
    config = tiny_config(
        folder / "run",
        data,
        epoches=10,
        eval_spatial_size=[96, 128],
        optimizer={"lr": 0.002},
        lr_warmup_scheduler={"warmup_duration": 5},
        use_ema=False,
        PResNet={"freeze_norm": False, "freeze_at": -1},
    )
    content = torch.load(DetSolver(config).fit().checkpoints["last"], weights_only=True)
    content["thresholds"] = {"overall": 0.08, "per_class": {"1": 0.09, "2": 1.0}}
    torch.save(content, folder / "best.pth")
    return folder / "best.pth"


@pytest.fixture(scope="module")
def served(instance, checkpoint, tmp_path_factory):
    """A running app with nothing deployed, and the images of a project."""
    folder = tmp_path_factory.mktemp("serving_app")
    store = instance.store
    project_id = make_project(store, folder / "digits", name="digits")
    store.files.put_path(TEAM_ID, BEST, checkpoint)
    task_id = store.tasks.create(app={"id": 2, "name": "Serve RT-DETRv2", "version": "local"})
    pictures, api = {}, instance.api()
    for image in api.image.get_list(
        next(d.id for d in api.dataset.get_list(project_id) if d.name == "train")
    ):
        number = image.name.removeprefix("train_")
        pictures[image.id] = next((folder / "digits").rglob(f"train/{number}"))
    (folder / "tmp").mkdir()
    app = RunningApp(
        server_address=instance.address,
        token=instance.token,
        data_dir=folder / "app",
        task_id=task_id,
        app_dir=SERVE,
        variable="model",
        environment={
            "APP_NAME": "Serve RT-DETRv2",
            "RTDETR_URL_NETWORKS": "127.0.0.1",
            "TMPDIR": str(folder / "tmp"),
        },
    )
    with app:
        app.wait_until_ready()
        yield SimpleNamespace(
            app=app, instance=instance, project_id=project_id, pictures=pictures, folder=folder
        )


def deploy(served, path=BEST, runtime="PyTorch", device="cpu", **info):
    """Send the platform's request to deploy a checkpoint of an experiment."""
    params = {
        "model_files": {"checkpoint": path},
        "model_source": "Custom models",
        "model_info": {"artifacts_dir": ARTIFACTS, **info},
        "device": device,
        "runtime": runtime,
    }
    return ask(served, "deploy_from_api", deploy_params=params)


def ask(served, route, **state):
    """POST as the platform does; returns the response."""
    body = {
        "state": state,
        "context": OUTSIDE,
        "api_token": served.instance.token,
        "server_address": served.instance.address,
    }
    return served.app.client.post(f"/{route}", json=body)


def upload(served, *contents, route="inference_image", name="same.jpg", **settings):
    files = [("files", (name, content)) for content in contents]
    data = {"state": json.dumps({"settings": settings or EVERYTHING})}
    return served.app.client.post(f"/{route}", files=files, data=data)


def ok(response):
    assert response.status_code == 200, response.text
    return response.json()


def found(prediction):
    """(class, corners, score) of every object in a response."""
    return [
        (
            o["classTitle"],
            np.ravel(o["points"]["exterior"]).tolist(),
            pytest.approx(o["tags"][0]["value"], rel=1e-4),
        )
        for o in prediction["annotation"]["objects"]
    ]


def expected(checkpoint, path, **settings):
    """Detections of the engine without the app."""
    image = read_rgb(path)
    detections, _ = Predictor(open_runtime(checkpoint)).predict([image], **settings)
    predictions = to_predictions(detections[0], [str(i) for i in range(10)], image.shape[:2])
    corners = [whole_pixels(p.bbox_tlbr) for p in predictions]
    return [
        (p.class_name, [left, top, right, bottom], p.score)
        for p, (top, left, bottom, right) in zip(predictions, corners, strict=True)
    ]


@pytest.fixture(scope="module")
def deployed(served):
    """The app with the checkpoint from Team Files deployed."""
    before = ask(served, "inference_image_id", image_id=next(iter(served.pictures)))
    assert (before.status_code, before.json()["message"]) == (
        400,
        "no model is deployed; deploy one first",
    )
    assert served.app.client.get("/is_ready").status_code == 503
    ok(deploy(served))
    assert served.app.client.get("/is_ready").status_code == 200
    return served


def test_session_describes_the_model(deployed):
    info = ok(ask(deployed, "get_session_info"))
    assert info["input_size_hw"] == [96, 128]
    assert (info["checkpoint_name"], info["runtime"], info["device"]) == (
        "best.pth",
        "PyTorch",
        "cpu",
    )
    assert info["number_of_classes"] == 10
    assert (info["tracking_on_videos_support"], info["tracking_algorithms"]) == (False, [])
    assert ask(deployed, "tracking_by_detection", video_id=1).status_code == 404
    meta = ok(ask(deployed, "get_model_meta"))
    assert [each["title"] for each in meta["classes"]] == [str(i) for i in range(10)]
    assert {each["shape"] for each in meta["classes"]} == {"rectangle"}
    deployment = ok(ask(deployed, "get_deploy_info"))
    assert deployment["custom_checkpoint_path"] == BEST
    assert ok(ask(deployed, "list_pretrained_models"))[0] == "RT-DETRv2-S"


def test_python_code_of_an_experiment_page_predicts(deployed, tmp_path, capsys):
    page = (PACKAGE / "sdk" / "experiment_page.md.jinja").read_text()
    (code,) = re.findall(r"```python\n( +from supervisely.*?)```", page, re.DOTALL)
    code = textwrap.dedent(code).replace("http://127.0.0.1:8000", deployed.app.address)
    code = code.replace("conf=0.5", "conf=0.0")
    folder, names = tmp_path / "images", {}
    folder.mkdir()
    for name in ("a.jpg", "b.jpg"):
        Image.new("RGB", (90, 70)).save(folder / name)
    for source, count in ((folder / "a.jpg", 1), (folder, 2)):
        exec(code.replace("image.jpg", str(source)), names)
        found = [len(each.annotation.labels) for each in names["predictions"]]
        assert len(found) == count
        assert min(found) > 0
        assert len(capsys.readouterr().out.splitlines()) == count


def test_predictions_match_the_engine(deployed, checkpoint):
    image_id, path = next(iter(deployed.pictures.items()))
    by_id = ok(ask(deployed, "inference_image_id", image_id=image_id, settings=EVERYTHING))
    assert len(found(by_id)) == 20
    assert found(by_id) == expected(checkpoint, path, confidence_threshold=0.0)
    uploaded = ok(upload(deployed, path.read_bytes()))
    assert found(uploaded) == found(by_id)
    assert uploaded["annotation"]["size"] == by_id["annotation"]["size"]


def test_image_by_url(deployed, checkpoint):
    path = next(iter(deployed.pictures.values()))
    handler = partial(SimpleHTTPRequestHandler, directory=path.parent)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{web.server_port}/{path.name}"
        answer = ok(ask(deployed, "inference_image_url", image_url=url, settings=EVERYTHING))
        missing = ask(deployed, "inference_image_url", image_url=f"{url}x")
        web.shutdown()
    assert found(answer) == expected(checkpoint, path, confidence_threshold=0.0)
    assert missing.status_code == 400
    assert (
        missing.json()["message"] == f"{url}x: cannot be downloaded (status 404); check the address"
    )


def test_large_image_and_other_format_are_rejected(deployed):
    with_header = png_header(13000, 13000)
    large = upload(deployed, with_header, name="large.png")
    assert large.status_code == 413
    assert large.json()["message"].startswith("large.png: 13000x13000 = 169,000,000 pixels")
    postscript = upload(deployed, b"%!PS-Adobe-3.0 EPSF-3.0\n", name="photo.jpg")
    assert postscript.status_code == 400
    assert postscript.json()["message"].startswith("photo.jpg: cannot be read as an image")


def test_settings_of_a_request(deployed, checkpoint):
    image_id, path = next(iter(deployed.pictures.items()))
    every = expected(checkpoint, path, confidence_threshold=0.0)
    middle = every[9][2]

    def objects(**settings):
        return found(ok(ask(deployed, "inference_image_id", image_id=image_id, **settings)))

    above = [each for each in every if each[2] >= middle]
    assert objects(settings={"conf": middle - 1e-6}) == above
    name = every[0][0]
    assert objects(settings={**EVERYTHING, "classes": [name]}) == [e for e in every if e[0] == name]
    kept = expected(checkpoint, path, confidence_threshold=0.0, nms_iou=0.01)
    assert len(kept) < len(every)
    assert objects(settings={**EVERYTHING, "nms_iou": 0.01}) == kept
    best = [each for each in every if each[2] >= (0.09 if each[0] == "1" else 0.08)]
    assert 0 < len(best) < len(every)
    assert objects(settings={"confidence_threshold": "auto"}) == best
    renamed = ask(deployed, "inference_image_id", image_id=image_id, settings={"score": 0.2})
    assert ok(renamed) and renamed.headers["x-note"] == "score is read as confidence_threshold"
    renamed = upload(deployed, path.read_bytes(), iou=0.5)
    assert ok(renamed) and renamed.headers["x-note"] == "iou is read as nms_iou"


def test_unknown_settings_and_classes_are_rejected_at_each_route(deployed):
    content = next(iter(deployed.pictures.values())).read_bytes()
    video = {"files": ("a.mp4", b"x")}
    for settings, reason in (
        ({"clases": ["1"]}, "clases: unknown setting; did you mean classes?"),
        ({"classes": ["1", "cat"]}, "does not have 'cat'; its classes are 0, 1, 2"),
    ):
        state = json.dumps({"settings": settings})
        answers = [
            ask(deployed, "inference_image_id", image_id=1, settings=settings),
            ask(deployed, "inference_image_id_async", image_id=1, settings=settings),
            ask(deployed, "inference_image_url", image_url="http://x/a.jpg", settings=settings),
            ask(deployed, "inference_batch_ids", batch_ids=[1], settings=settings),
            ask(deployed, "inference_batch_ids_async", batch_ids=[1], settings=settings),
            ask(deployed, "inference_video_id", videoId=1, settings=settings),
            ask(deployed, "inference_video_id_async", videoId=1, settings=settings),
            ask(deployed, "inference_project_id_async", projectId=1, settings=settings),
            ask(deployed, "run_speedtest", batch_size=1, projectId=1, settings=settings),
            *(
                upload(deployed, content, route=route, **settings)
                for route in ("inference_image", "inference_batch", "inference_batch_async")
            ),
            deployed.app.client.post("/inference_video_async", files=video, data={"state": state}),
        ]
        for answer in answers:
            assert (answer.status_code, reason in answer.text) == (400, True), answer.text
    misplaced = ask(deployed, "inference_image_id", image_id=1, conf=0.3)
    assert (
        misplaced.json()["message"] == "conf: belongs into the settings of the state; move it there"
    )


@pytest.mark.parametrize("text", ["[" * 100_000, "{", "[]", '"\\ud800"'])
def test_malformed_settings_of_a_form_are_rejected(deployed, text):
    content = next(iter(deployed.pictures.values())).read_bytes()
    routes = ("inference_image", "inference_batch", "inference_batch_async")
    for route in (*routes, "inference_video_async", "smart_cache_files"):
        for field in ("settings", "state"):
            answer = deployed.app.client.post(
                f"/{route}", files={"files": ("a.png", content)}, data={field: text}
            )
            assert answer.status_code == 400, (route, field, answer.text)
            assert answer.json()["message"]


def test_batches_keep_the_order_of_images(deployed, checkpoint):
    wanted = [expected(checkpoint, p, confidence_threshold=0.0) for p in deployed.pictures.values()]
    assert len({str(each) for each in wanted}) == len(wanted) == 6  # all different
    ids = list(deployed.pictures)
    state = {"batch_ids": ids, "settings": EVERYTHING, "batch_size": 4}
    by_id = ok(ask(deployed, "inference_batch_ids", **state))
    assert [each["image_id"] for each in by_id] == ids
    assert [found(each) for each in by_id] == wanted
    contents = [path.read_bytes() for path in deployed.pictures.values()]
    uploaded = ok(upload(deployed, *contents, route="inference_batch"))
    assert [found(each) for each in uploaded] == wanted  # all with the same name


def test_uploads_leave_no_files(deployed):
    def files():
        return {str(path) for path in deployed.folder.rglob("*")}

    content, before = next(iter(deployed.pictures.values())).read_bytes(), files()
    assert str(deployed.folder / "tmp") in before
    for route in ("inference_image", "inference_batch"):
        ok(upload(deployed, content, route=route))
    request = ok(upload(deployed, content, route="inference_batch_async"))
    deployed.app.wait_for(
        lambda: ok(ask(deployed, "get_inference_progress", **request))["finished"], "its end"
    )
    assert files() == before


def test_project_is_predicted_in_the_background(deployed, checkpoint):
    state = {"projectId": deployed.project_id, "settings": EVERYTHING, "batch_size": 3}
    started = ok(ask(deployed, "inference_project_id_async", **state))
    request = {"inference_request_uuid": started["inference_request_uuid"]}

    def progress():
        return ok(ask(deployed, "get_inference_progress", **request))

    deployed.app.wait_for(lambda: progress()["finished"], "end of the inference")
    assert progress()["exception"] is None
    results = ok(ask(deployed, "pop_inference_results", **request))["pending_results"]
    assert len(results) == 10
    by_image = {each["image_id"]: found(each) for each in results}
    for image_id, path in deployed.pictures.items():
        assert by_image[image_id] == expected(checkpoint, path, confidence_threshold=0.0)
    assert ok(ask(deployed, "clear_inference_request", **request))["success"] is True


def test_speed_test_measures_three_stages(deployed):
    state = {"projectId": deployed.project_id, "batch_size": 2, "num_iterations": 2}
    started = ok(ask(deployed, "run_speedtest", **state, num_warmup=1))
    request = {"inference_request_uuid": started["inference_request_uuid"]}
    deployed.app.wait_for(
        lambda: ok(ask(deployed, "get_inference_progress", **request))["finished"], "end"
    )
    times = ok(ask(deployed, "pop_inference_results", **request))["pending_results"]
    assert len(times) == 2
    for each in times:
        parts = [each[name] for name in ("preprocess", "inference", "postprocess")]
        assert min(parts) > 0
        assert sum(parts) < each["total"]  # all in milliseconds


BAD_STATES = {
    "does not": ("inference_image_id", {"image_id": 99999}),
    "exist": ("inference_batch_ids", {"batch_ids": [1, 99999]}),
    "Image ids are not provided": ("inference_image_id", {}),
    "did you mean confidence_threshold": (
        "inference_image_id",
        {"image_id": 1, "settings": {"confidence_treshold": 0.3}},
    ),
    "confidence_threshold = 7": ("inference_image_id", {"image_id": 1, "settings": {"conf": 7}}),
    "settings = 3": ("inference_image_id", {"image_id": 1, "settings": 3}),
    "image_id = None: give an integer": ("inference_image_id", {"image_id": None}),
    "batch_ids = [[1]]: give a list": ("inference_batch_ids_async", {"batch_ids": [[1]]}),
    "image_url = 5: give an address": ("inference_image_url", {"image_url": 5}),
    "batch_size = 0": ("inference_batch_ids", {"batch_ids": [1], "batch_size": 0}),
    "there is no such uuid": ("get_inference_progress", {"inference_request_uuid": "none"}),
}


@pytest.mark.parametrize("reason", list(BAD_STATES))
def test_invalid_requests_get_their_reason(deployed, reason):
    route, state = BAD_STATES[reason]
    for _ in range(2):  # a failure does not block the next request
        response = ask(deployed, route, **state)
        assert response.status_code == 400
        reason_part = reason if reason != "does not" else "99999"
        assert reason_part in response.json()["message"]


def test_invalid_uploads_and_bodies(deployed):
    whole = next(iter(deployed.pictures.values())).read_bytes()
    torn = upload(deployed, whole[: len(whole) // 2], name="torn.jpg")
    assert torn.status_code == 400
    assert torn.json()["message"].startswith("torn.jpg: cannot be read as an image (")
    assert upload(deployed, b"garbage").status_code == 400
    two = upload(deployed, whole, whole)
    assert (two.status_code, two.json()["message"]) == (400, "expected one file, got 2")
    client = deployed.app.client
    headers = {"content-type": "application/json"}
    broken = client.post("/inference_image_id", content=b"{garbage", headers=headers)
    assert broken.status_code == 400
    assert "the body is not JSON" in broken.json()["message"]


def test_concurrent_clients_get_their_own_results(deployed):
    """Valid requests among invalid ones: every response equals that of a single request."""
    ids, paths = list(deployed.pictures), list(deployed.pictures.values())
    contents = [path.read_bytes() for path in paths]

    def by_id(k):
        return ask(deployed, "inference_image_id", image_id=ids[k], settings=EVERYTHING)

    def by_upload(k):
        return upload(deployed, contents[k])

    def by_batch(k):
        return upload(deployed, contents[k], contents[k - 1], route="inference_batch")

    def missing(k):
        return ask(deployed, "inference_image_id", image_id=99000 + k)

    def torn(k):
        return upload(deployed, contents[k][: 500 + k])

    def garbage(k):
        headers = {"content-type": "application/json"}
        return deployed.app.client.post("/inference_batch_ids", content=b"[{", headers=headers)

    jobs = [
        (kind, k)
        for kind in (by_id, by_upload, by_batch, missing, torn, garbage)
        for k in range(len(ids))
    ] * 2
    alone = {(kind.__name__, k): _what(kind(k)) for kind, k in jobs[: len(jobs) // 2]}
    together = threading.Barrier(16)

    def work(mine):
        together.wait()
        return [((kind.__name__, k), _what(kind(k))) for kind, k in mine]

    with ThreadPoolExecutor(16) as pool:
        answers = [
            pair for part in pool.map(work, [jobs[i::16] for i in range(16)]) for pair in part
        ]
    assert len(answers) == len(jobs)
    assert [key for key, got in answers if got != alone[key]] == []
    assert {got[0] for key, got in answers if key[0] in ("by_id", "by_upload", "by_batch")} == {200}
    assert {got[0] for key, got in answers if key[0] in ("missing", "torn", "garbage")} == {400}


def _what(response):
    content = response.json()
    if response.status_code != 200:
        return response.status_code, content["message"]
    parts = content if isinstance(content, list) else [content]
    # A batch computes sums in another order.
    return 200, [
        [(o["classTitle"], o["points"], round(o["tags"][0]["value"], 4)) for o in objects]
        for objects in (part["annotation"]["objects"] for part in parts)
    ]


def test_rejected_deployments_keep_the_model_and_a_single_file_is_accepted(deployed, checkpoint):
    image_id, path = next(iter(deployed.pictures.items()))
    before = ok(ask(deployed, "get_deploy_info")), ok(ask(deployed, "get_model_meta"))

    def still_answers(reason):
        after = ok(ask(deployed, "get_deploy_info")), ok(ask(deployed, "get_model_meta"))
        assert after == before, reason
        answer = ask(deployed, "inference_image_id", image_id=image_id, settings=EVERYTHING)
        assert found(ok(answer)) == expected(checkpoint, path, confidence_threshold=0.0)
        assert deployed.app.client.get("/is_ready").status_code == 200

    for changes, reason in (
        ({"runtime": "NCNN"}, "runtime = 'NCNN': there are PyTorch, ONNXRuntime, TensorRT"),
        ({"device": "cuda:77"}, "device = 'cuda:77': torch sees"),
        ({"path": "/none.pth"}, "'/none.pth' not found in Team Files"),
    ):
        response = deploy(deployed, **changes)
        assert response.status_code == 400
        assert reason in response.json()["message"]
        still_answers(response.json()["message"])
    assert ask(deployed, "deploy_from_api").status_code == 400
    bare = shutil.copy(checkpoint, deployed.folder / "bare.pth")
    broken = deployed.folder / "broken.pth"
    broken.write_bytes(checkpoint.read_bytes()[:1000])
    refused = deploy(deployed, path=str(broken))
    assert refused.status_code == 400
    assert "broken.pth" in refused.json()["message"]
    still_answers(refused.json()["message"])
    ok(deploy(deployed, path=str(bare)))
    assert ok(ask(deployed, "get_deploy_info"))["checkpoint_name"] == "bare.pth"
    by_id = ok(ask(deployed, "inference_image_id", image_id=image_id, settings=EVERYTHING))
    assert found(by_id) == expected(checkpoint, path, confidence_threshold=0.0)


def test_failed_download_does_not_block_an_image(instance, tmp_path):
    api = instance.api()
    bare = InferenceImageCache(10, 60, base_folder=tmp_path / "bare")
    with pytest.raises(requests.HTTPError):
        bare.download_image(api, 99999)
    assert (
        "image_99999" in bare._load_queue
    )  # the next request waits; else `ImageCache` is not needed
    ours = ImageCache(10, 60, base_folder=tmp_path / "ours")
    for _ in range(2):
        with pytest.raises(requests.HTTPError):
            ours.download_image(api, 99999)


def test_local_command_serves_the_latest_experiment(checkpoint, tmp_path):
    from supervisely_integration.local.emulator.store import Store

    store = Store(tmp_path / "instance")
    info = {"artifacts_dir": f"{ARTIFACTS}/", "best_checkpoint": "best.pth"}
    store.files.put_path(TEAM_ID, f"{ARTIFACTS}/experiment_info.json", json.dumps(info).encode())
    store.files.put_path(TEAM_ID, BEST, checkpoint)
    store.close()
    port = free_port()
    command = [sys.executable, "-m", "supervisely_integration.local", "serve"]
    options = ["--root", str(tmp_path / "instance"), "--port", str(port)]
    with subprocess.Popen(
        [*command, *options], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            lines = [process.stdout.readline() for _ in range(3)]
            assert lines == [
                f"Serving {BEST} with PyTorch\n",
                f"http://127.0.0.1:{port}\n",
                f"{tmp_path / 'instance' / 'tasks' / '1' / 'app.log'}\n",
            ]
            responded = httpx.post(f"http://127.0.0.1:{port}/get_session_info", json={"state": {}})
            assert responded.json()["app_name"] == "Serve RT-DETRv2"
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0
        finally:
            process.kill()  # the end of the block waits for it
