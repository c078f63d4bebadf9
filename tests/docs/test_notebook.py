"""The notebook in examples/ runs."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from rtdetrv2_pytorch.src.core.yaml_files import merge
from tests.tiny import SMALL_BACKBONE, tiny_file

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "examples" / "train_and_predict.ipynb"


def test_notebook_has_no_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert NOTEBOOK.stat().st_size < 10_000


@pytest.fixture(scope="module")
def executed(digits, tmp_path_factory):
    """Run the notebook with a tiny network; return the outputs of its code cells by first line."""
    folder = tmp_path_factory.mktemp("notebook")
    values = merge(SMALL_BACKBONE, {"epoches": 2})
    config = tiny_file(folder / "tiny.yml", folder / "out", digits, **values)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (parameters,) = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", ())]
    names = [line.split(" = ")[0] for line in parameters.source.splitlines()]
    assert names == ["MODEL", "WEIGHTS", "DATA", "EPOCHS"]
    parameters.source = f'MODEL = "{config}"\nWEIGHTS = None\nDATA = "{digits}"\nEPOCHS = 2'
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        NotebookClient(notebook, timeout=300, resources={"metadata": {"path": folder}}).execute()
    return {c.source.splitlines()[0]: c.outputs for c in notebook.cells if c.cell_type == "code"}


def texts(outputs):
    return [
        output.get("text") or output.data.get("text/plain", "")
        for output in outputs
        if output.output_type != "execute_result"
    ]


@pytest.mark.slow
def test_training_prints_epochs_and_leaves_no_progress_line(executed):
    printed = "\n".join(texts(executed["from rtdetrv2 import RTDETR"]))
    assert "epoch   1/2  AP" in printed
    assert "epoch   2/2  AP" in printed
    assert "building the network" not in printed  # the progress line was replaced


@pytest.mark.slow
def test_result_shows_curves(executed):
    (output,) = executed["result"]
    assert output.data["text/html"].count("<svg") >= 2


@pytest.mark.slow
def test_detections_are_shown_as_pictures(executed):
    (output,) = executed['images = sorted(Path(DATA, "val").iterdir())']
    assert set(output.data) == {"image/png", "text/plain"}
    (output,) = executed["detections.filter(score=0.5).plot()"]
    assert "image/png" in output.data


@pytest.mark.slow
def test_export_is_opened_and_predicts(executed):
    output = executed['path = model.export("onnx")'][-1]
    assert "10 classes, 64x96, onnxruntime on " in output.data["text/plain"]
    output = executed["exported.predict(images, score=0.3)"][-1]
    assert output.data["text/plain"].count("Detections(") == 4
