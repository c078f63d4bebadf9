"""Exported ONNX files: batches against PyTorch with batch size 1."""

from functools import lru_cache

import onnx
import onnxruntime as ort
import pytest
import torch

from rtdetrv2_pytorch.src.core.yaml_files import merge
from rtdetrv2_pytorch.src.deploy import onnx as deploy_onnx
from rtdetrv2_pytorch.src.deploy.detector import load_detector
from rtdetrv2_pytorch.src.deploy.int8.graph import float_nodes
from rtdetrv2_pytorch.src.deploy.onnx import write_onnx
from rtdetrv2_pytorch.src.deploy.onnx_file import read_card
from rtdetrv2_pytorch.src.deploy.runtimes import openvino_core
from rtdetrv2_pytorch.src.deploy.suppression import suppress
from rtdetrv2_pytorch.src.misc.errors import ExportError
from rtdetrv2_pytorch.src.structures import DetectionTensors
from tests.random_detectors import assert_same_detections
from tests.tiny import NETWORK

EXPORTERS = ["torchscript", pytest.param("dynamo", marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
def exported(tiny, tmp_path_factory):
    """exported("torchscript", ...): export the tiny detector once per set of options."""
    written = {}

    def export(exporter="torchscript", **options):
        key = (exporter, *sorted(options.items()))
        if key not in written:
            path = tmp_path_factory.mktemp("onnx") / "model.onnx"
            card = write_onnx(tiny.detector, tiny.card, path, exporter=exporter, **options)
            written[key] = path, card
        return written[key]

    return export


@lru_cache(maxsize=1)
def open_session(path):
    return ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def run(path, images, sizes_wh):
    inputs = {"images": images.numpy(), "orig_target_sizes": sizes_wh.numpy()}
    results = open_session(path).run(["labels", "boxes", "scores"], inputs)
    return tuple(torch.from_numpy(result) for result in results)


def run_openvino(path, images, sizes_wh):
    model = openvino_core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    results = model({"images": images.numpy(), "orig_target_sizes": sizes_wh.numpy()})
    return tuple(torch.from_numpy(results[n].copy()) for n in ("labels", "boxes", "scores"))


def assert_nearly_same(found, expected, share, pixels=1.0, score=5e-3):
    """Most detections agree; rounding can select another cell or swap neighbors."""
    error = (found[2] - expected[2]).abs()
    assert error.max() < 10 * score
    near = (found[1] - expected[1]).abs().amax(-1) < pixels
    same = (error < score) & near & (found[0] == expected[0])
    assert same.float().mean() >= share


def one_by_one(detector, images, sizes_wh):
    with torch.inference_mode():
        each = [detector(images[i : i + 1], sizes_wh[i : i + 1]) for i in range(len(images))]
    return tuple(torch.cat(values) for values in zip(*each, strict=True))


def op_types(path):
    return [node.op_type for node in onnx.load(path).graph.node]


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("batch", [1, 2, 7])
def test_batch_agrees_with_pytorch_at_batch_size_1(tiny, exported, exporter, batch):
    path, _ = exported(exporter)
    images, sizes_wh = tiny.images[-batch:], tiny.sizes_wh[-batch:]
    assert_same_detections(run(path, images, sizes_wh), one_by_one(tiny.detector, images, sizes_wh))


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_openvino_agrees(tiny, exported, batch):
    path, _ = exported()
    images, sizes_wh = tiny.images[:batch], tiny.sizes_wh[:batch]
    assert_same_detections(
        run_openvino(path, images, sizes_wh), one_by_one(tiny.detector, images, sizes_wh)
    )


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_grid_sample_is_replaced(tiny, exported, exporter):
    path, _ = exported(exporter, grid_sample=False)
    assert "GridSample" not in op_types(path)
    expected = one_by_one(tiny.detector, tiny.images, tiny.sizes_wh)
    for batch in (1, 7):
        inputs = tiny.images[:batch], tiny.sizes_wh[:batch]
        for found in (run(path, *inputs), run_openvino(path, *inputs)):
            wanted = [values[:batch] for values in expected]
            assert_same_detections(found, wanted, score=1e-4, pixels=0.05)


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_inputs_and_outputs(exported, exporter):
    path, _ = exported(exporter)
    model = onnx.load(path)

    def described(values):
        return {
            value.name: (
                value.type.tensor_type.elem_type,
                [d.dim_value or "any" for d in value.type.tensor_type.shape.dim],
            )
            for value in values
        }

    floats, whole = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
    assert described(model.graph.input) == {
        "images": (floats, ["any", 3, 96, 160]),
        "orig_target_sizes": (whole, ["any", 2]),
    }
    assert described(model.graph.output) == {
        "labels": (whole, ["any", 20]),
        "boxes": (floats, ["any", 20, 4]),
        "scores": (floats, ["any", 20]),
    }
    (opset,) = [entry.version for entry in model.opset_import if entry.domain == ""]
    assert opset >= 17


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_layer_norms_are_native_and_weights_are_in_the_file(tiny, exported, exporter):
    path, _ = exported(exporter)
    # Two in the encoder layer, three in each of two decoder layers, one before query selection.
    norms = sum(isinstance(m, torch.nn.LayerNorm) for m in tiny.detector.modules())
    assert norms == 9
    # The last one runs twice: for all cells and for the selected ones.
    assert op_types(path).count("LayerNormalization") == norms + 1
    assert "GridSample" in op_types(path)
    assert not {"BatchNormalization", "Dropout", "If", "Loop"} & set(op_types(path))  # fused
    assert [other.name for other in path.parent.iterdir()] == ["model.onnx"]
    model = onnx.load(path, load_external_data=False)
    assert not any(tensor.external_data for tensor in model.graph.initializer)


@pytest.mark.slow
def test_layers_that_int8_leaves_in_float_are_found_with_both_exporters(exported):
    counts = {}
    for exporter in ("torchscript", "dynamo"):
        model = onnx.load(exported(exporter)[0])
        kept = {*float_nodes(model)}
        convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
        in_float = [node for node in convolutions if node.name in kept]
        assert in_float == convolutions[:3]
        late, after_selection = [], set()
        for node in model.graph.node:
            if node.op_type == "TopK" or not after_selection.isdisjoint(node.input):
                after_selection.update(node.output)
                late.append(node)
        assert len(late) > 100
        assert [node.name for node in late if node.name not in kept] == []
        products = [node for node in model.graph.node if node.op_type in ("MatMul", "Gemm")]
        assert [node.name for node in products if node.name not in kept] == []
        counts[exporter] = len(convolutions)
    assert counts["torchscript"] == counts["dynamo"]


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_model_card_in_the_file(tiny, exported, exporter):
    path, card = exported(exporter)
    assert read_card(path) == card == tiny.card
    assert card.class_names == ("cat", "dog", "owl")


@pytest.mark.slow  # test_runtimes.py has such a file among the quick tests
def test_graph_without_slimming_agrees(tiny, exported):
    path, _ = exported(slim=False)
    assert len(op_types(path)) > len(op_types(exported()[0]))
    assert_same_detections(run(path, tiny.images, tiny.sizes_wh), tiny.found)


@pytest.mark.slow
def test_newer_opset_agrees(tiny, exported):
    path, _ = exported(opset=18)
    assert {e.version for e in onnx.load(path).opset_import if e.domain == ""} == {18}
    assert_same_detections(run(path, tiny.images, tiny.sizes_wh), tiny.found)


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_discrete_sampling_avoids_grid_sample(tiny, tmp_path, exporter):
    detector, card = load_detector(tiny.path, sampling="discrete")
    path = tmp_path / "dsp.onnx"
    write_onnx(detector, card, path, exporter=exporter)
    assert "GridSample" not in op_types(path)
    assert read_card(path).sampling == "discrete"
    expected = one_by_one(detector, tiny.images, tiny.sizes_wh)
    for batch in (1, 2, 7):
        inputs = tiny.images[:batch], tiny.sizes_wh[:batch]
        alone = [values[:batch] for values in expected]
        assert_nearly_same(run(path, *inputs), alone, share=0.9)
    assert_nearly_same(run_openvino(path, *inputs), expected, share=0.9)


@pytest.fixture(scope="module")
def every_cell(make_checkpoint, tmp_path_factory):
    """A detector with HGNetv2, one query per cell, so that rounding does not affect selection."""
    path = make_checkpoint(
        tmp_path_factory.mktemp("every_cell") / "best.pth",
        "rtdetrv2_hgnetv2_l_6x_coco",
        network=merge(
            NETWORK,
            {
                "HGNetv2": {"pretrained": False},
                "RTDETRTransformerv2": {"num_queries": 12 * 20 + 6 * 10 + 3 * 5},
            },
        ),
    )
    return load_detector(path)


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_half_precision_nearly_agrees(tiny, every_cell, tmp_path, exporter):
    detector, card = every_cell
    path = tmp_path / "x.onnx"
    card = write_onnx(detector, card, path, exporter=exporter, precision="fp16", slim=False)
    assert card.precision == read_card(path).precision == "fp16"
    labels, boxes, scores = run(path, tiny.images, tiny.sizes_wh)
    assert (labels.dtype, boxes.dtype, scores.dtype) == (torch.int64, *2 * [torch.float32])
    expected = one_by_one(detector, tiny.images, tiny.sizes_wh)
    torch.testing.assert_close(scores, expected[2], rtol=0, atol=0.05)
    assert (scores - expected[2]).abs().mean() < 0.01
    assert (expected[2] - expected[2].roll(1, 0)).abs().mean() > 0.03  # images differ more
    # Random weights have near ties; labels and boxes are compared on trained networks.


def test_half_precision_keeps_norms_softmax_and_sampling_float32(exported):
    path, _ = exported(precision="fp16")
    assert path.stat().st_size < 0.6 * exported()[0].stat().st_size
    model = onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True)
    types = {i.name: i.type.tensor_type.elem_type for i in model.graph.value_info}
    types |= {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    halves = {
        node.op_type
        for node in model.graph.node
        for name in node.input
        if node.op_type != "Cast" and types.get(name) == onnx.TensorProto.FLOAT16
    }
    assert {"Conv", "MatMul", "Relu"} <= halves
    assert not {"LayerNormalization", "Softmax", "GridSample", "TopK", "Log"} & halves


def by_suppression(tiny, iou):
    """Yield the detections of PyTorch after NMS per image."""
    for labels, boxes, scores in zip(*tiny.found, strict=True):
        yield suppress(DetectionTensors(labels=labels, boxes=boxes, scores=scores), iou)


@pytest.mark.parametrize("run", [run, run_openvino])
def test_nms_in_the_file(tiny, exported, run):
    path, card = exported(nms_iou=0.05)
    assert card.nms_iou == read_card(path).nms_iou == 0.05
    labels, boxes, scores = run(path, tiny.images, tiny.sizes_wh)
    assert scores.shape == (7, 20)
    counts = []
    for image, expected in enumerate(by_suppression(tiny, 0.05)):
        count = len(expected["scores"])
        counts.append(count)
        assert labels[image, :count].tolist() == expected["labels"].tolist()
        torch.testing.assert_close(boxes[image, :count], expected["boxes"], rtol=0, atol=0.5)
        torch.testing.assert_close(scores[image, :count], expected["scores"], rtol=0, atol=1e-3)
        assert not scores[image, count:].any()
    assert min(counts) < 20  # NMS removed detections


def test_nms_in_half_precision(tiny, exported):
    path, card = exported(nms_iou=0.05, precision="fp16")
    assert (card.nms_iou, card.precision) == (0.05, "fp16")
    found = run(path, tiny.images, tiny.sizes_wh)
    everything = run(exported(precision="fp16")[0], tiny.images, tiny.sizes_wh)
    for image in range(7):
        labels, boxes, scores = (values[image] for values in everything)
        expected = suppress(DetectionTensors(labels=labels, boxes=boxes, scores=scores), 0.05)
        count = len(expected["scores"])
        torch.testing.assert_close(found[2][image, :count], expected["scores"])
        torch.testing.assert_close(found[1][image, :count], expected["boxes"])
        assert not found[2][image, count:].any()


@pytest.mark.parametrize("opset", [11, 16])
def test_low_opset_is_rejected(tiny, tmp_path, opset):
    with pytest.raises(ExportError, match=rf"^opset = {opset}: must be 17 or higher"):
        write_onnx(tiny.detector, tiny.card, tmp_path / "x.onnx", opset=opset)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("iou", [0, -1, 1.5])
def test_invalid_nms_iou_is_rejected(tiny, tmp_path, iou):
    with pytest.raises(ExportError, match="must be above 0 and at most 1"):
        write_onnx(tiny.detector, tiny.card, tmp_path / "x.onnx", nms_iou=iou)


def test_existing_file_is_replaced(tiny, tmp_path):
    path = tmp_path / "x.onnx"
    path.write_bytes(b"an older export")
    write_onnx(tiny.detector, tiny.card, path, slim=False)
    assert_same_detections(
        run(path, tiny.images[:1], tiny.sizes_wh[:1]), [v[:1] for v in tiny.found]
    )


@pytest.mark.parametrize("stage", ["trace", "check"])
def test_failed_export_leaves_no_file(tiny, tmp_path, monkeypatch, stage):
    path = tmp_path / "x.onnx"
    path.write_bytes(b"an older export")
    if stage == "trace":
        broken = torch.nn.Linear(2, 2)  # takes one input
        broken.requires_grad_(False)
        reason = "forward"
    else:
        broken = tiny.detector
        reason = "no good"

        def fails(*_, **__):
            raise onnx.checker.ValidationError("no good\nand more")

        monkeypatch.setattr(deploy_onnx.onnx.checker, "check_model", fails)
    with pytest.raises(
        ExportError, match=rf"^x\.onnx: the torchscript exporter .* failed \(.*{reason}"
    ):
        write_onnx(broken, tiny.card, path, slim=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow  # tests/integration/test_export.py does the same with a trained ResNet
@pytest.mark.parametrize("exporter", EXPORTERS)
def test_hgnetv2(tiny, every_cell, tmp_path, exporter):
    detector, card = every_cell
    assert card.num_detections == 20
    write_onnx(detector, card, tmp_path / "x.onnx", exporter=exporter)
    expected = one_by_one(detector, tiny.images, tiny.sizes_wh)
    for batch in (1, 2, 7):
        found = run(tmp_path / "x.onnx", tiny.images[-batch:], tiny.sizes_wh[-batch:])
        assert_nearly_same(found, [values[-batch:] for values in expected], share=0.9)
