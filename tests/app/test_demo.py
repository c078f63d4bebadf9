"""The demo files that the SDK and its page look for."""

import yaml
from supervisely.nn.training.gui import training_artifacts

from supervisely_integration.paths import DEMO, ROOT, TRAIN_OPTIONS

OPTIONS = yaml.safe_load(TRAIN_OPTIONS.read_text(encoding="utf-8"))


def test_files_have_the_names_of_the_sdk():
    assert ROOT / OPTIONS["demo"]["path"] == DEMO
    for name in ("OVERVIEW", "PYTORCH", "ONNX", "TRT"):
        assert (DEMO / getattr(training_artifacts, f"{name}_FILE_NAME")).is_file()


def test_page_links_the_demos(instance, monkeypatch, tmp_path):
    """The SDK searches the current directory: the repository, or the folder of a local app."""
    from supervisely_integration.local.launcher.app_process import AppProcess

    monkeypatch.setenv("ENV", "development")
    monkeypatch.setenv("APP_NAME", "Train RT-DETRv2")
    monkeypatch.setenv("SERVER_ADDRESS", instance.address)
    monkeypatch.setenv("API_TOKEN", instance.token)
    with AppProcess(
        server_address=instance.address, token=instance.token, data_dir=tmp_path, port=1
    ):
        pass
    import supervisely as sly

    path = OPTIONS["demo"]["path"]
    exports = {"export_onnx_supported": True, "export_tensorrt_supported": True}
    for folder in (ROOT, tmp_path):
        monkeypatch.chdir(folder)
        page = training_artifacts.TrainingArtifacts(sly.Api(), {**OPTIONS, **exports})
        assert page.need_upload_demo
        assert page.overview_demo_exists(path)
        links = {
            field._title: field._description_url
            for field in (page.pytorch_instruction, page.onnx_instruction, page.trt_instruction)
        }
        base = "https://github.com/supervisely-ecosystem/rt-detrv2/blob/main"
        assert links == {
            "PyTorch": f"{base}/{path}/demo_pytorch.py",
            "ONNX": f"{base}/{path}/demo_onnx.py",
            "TensorRT": f"{base}/{path}/demo_tensorrt.py",
        }
