"""Loading checkpoints of this package, the SDK and upstream as one module."""

import hashlib
import logging

import pytest
import torch
import yaml

from rtdetrv2_pytorch.src.core import YAMLConfig
from rtdetrv2_pytorch.src.core.yaml_files import merge
from rtdetrv2_pytorch.src.deploy.detector import example_inputs, load_detector
from rtdetrv2_pytorch.src.misc.coco_categories import COCO_CATEGORIES, COCO_CATEGORY_IDS
from rtdetrv2_pytorch.src.misc.errors import CheckpointError, ConfigError
from tests.random_detectors import random_images
from tests.tiny import CONFIGS, NETWORK

S_CONFIG = CONFIGS / "rtdetrv2" / "rtdetrv2_r18vd_120e_coco.yml"


def content(tiny):
    return torch.load(tiny.path, weights_only=True)


def assert_same_detections(detector, tiny):
    with torch.inference_mode():
        labels, boxes, scores = detector(tiny.images, tiny.sizes_wh)
    assert torch.equal(labels, tiny.found[0])
    torch.testing.assert_close(boxes, tiny.found[1])
    torch.testing.assert_close(scores, tiny.found[2])


def test_model_card_of_our_checkpoint(tiny):
    card = tiny.card
    assert card.class_names == ("cat", "dog", "owl")
    assert card.input_size_hw == (96, 160)
    assert card.num_detections == 20
    assert card.thresholds() == [0.5, 0.3, 0.4]  # no owl was detected
    assert (card.sampling, card.precision, card.nms_iou) == ("default", "fp32", None)
    assert card.source_sha256 == hashlib.sha256(tiny.path.read_bytes()).hexdigest()
    assert card.versions["torch"] == torch.__version__.split("+")[0]


def test_detections_equal_those_of_the_solver_model(tiny):
    """Compare the fused module with network and postprocessor run separately."""
    saved = content(tiny)
    cfg = YAMLConfig.from_values(saved["config"], name="x")
    cfg.model.load_state_dict(saved["model"])
    with torch.inference_mode():
        outputs = cfg.model.eval()(tiny.images)
        separate = cfg.postprocessor.eval()(outputs, tiny.sizes_wh)
    for place, one in enumerate(separate):
        # The recipe evaluates by COCO category id; a detector returns labels.
        ids = [COCO_CATEGORY_IDS[label] for label in tiny.found[0][place].tolist()]
        assert one["labels"].tolist() == ids
        torch.testing.assert_close(one["boxes"], tiny.found[1][place], rtol=1e-4, atol=0.1)
        torch.testing.assert_close(one["scores"], tiny.found[2][place], rtol=1e-3, atol=1e-4)


def test_detector_is_fused_frozen_and_in_eval_mode(tiny):
    detector = tiny.detector
    assert not any(module.training for module in detector.modules())
    assert not any(value.requires_grad for value in detector.parameters())
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in detector.modules())


def test_images_of_a_batch_are_independent(tiny):
    order = [3, 0, 6]
    with torch.inference_mode():
        labels, boxes, scores = tiny.detector(tiny.images[order], tiny.sizes_wh[order])
    assert torch.equal(labels, tiny.found[0][order])
    torch.testing.assert_close(boxes, tiny.found[1][order], rtol=1e-4, atol=0.1)
    torch.testing.assert_close(scores, tiny.found[2][order], rtol=1e-3, atol=1e-4)
    assert not torch.allclose(scores[0], scores[1], atol=0.01)


def test_uint8_input(tiny):
    pixels = (tiny.images * 255).round().to(torch.uint8)
    with torch.inference_mode():
        whole = tiny.detector(pixels, tiny.sizes_wh)
        scaled = tiny.detector(pixels.float() / 255, tiny.sizes_wh)
    for a, b in zip(whole, scaled, strict=True):
        torch.testing.assert_close(a, b)


def test_sdk_checkpoint_contains_its_configuration(tiny, tmp_path):
    saved = content(tiny)
    theirs = {
        "model": saved["model"],
        "model_files": {
            "config": {"name": "model_config.yml", "content": yaml.safe_dump(saved["config"])}
        },
        "model_meta": {"classes": [{"title": "x"}, {"title": "y"}, {"title": "z"}]},
        "model_info": {"model_name": "RT-DETRv2-S"},
    }
    torch.save(theirs, tmp_path / "theirs.pth")
    detector, card = load_detector(tmp_path / "theirs.pth")
    assert card.class_names == ("x", "y", "z")
    assert (card.model_name, card.input_size_hw) == ("RT-DETRv2-S", (96, 160))
    assert card.threshold is None
    assert_same_detections(detector, tiny)


def test_paths_and_urls_in_a_configuration_are_ignored(tiny, tmp_path):
    saved = content(tiny)
    elsewhere = {
        "output_dir": "/nowhere/out",
        "tuning": "https://example.invalid/weights.pth",
        "device": "cuda:7",
        "train_dataloader": {"dataset": {"img_folder": "/nowhere", "ann_file": "/nowhere/a.json"}},
        "PResNet": {"pretrained": True},  # would be downloaded
    }
    saved["config"] = merge(saved["config"], elsewhere)
    torch.save(saved, tmp_path / "x.pth")
    assert_same_detections(load_detector(tmp_path / "x.pth")[0], tiny)


def tiny_yaml(tiny, folder):
    path = folder / "tiny.yml"
    path.write_text(yaml.safe_dump(content(tiny)["config"]))
    return path


def test_bare_weights_with_a_configuration(tiny, tmp_path):
    saved = content(tiny)
    torch.save(saved["model"], tmp_path / "bare.pth")
    config = tiny_yaml(tiny, tmp_path)
    detector, card = load_detector(
        tmp_path / "bare.pth", config=config, class_names=["p", "q", "r"]
    )
    assert card.class_names == ("p", "q", "r")
    assert card.input_size_hw == (96, 160)
    assert_same_detections(detector, tiny)


def test_ema_weights_are_preferred(tiny, tmp_path):
    state = content(tiny)["model"]
    raw = {key: torch.zeros_like(value) for key, value in state.items()}
    torch.save({"model": raw, "ema": {"module": state, "updates": 9}}, tmp_path / "upstream.pth")
    detector, _ = load_detector(
        tmp_path / "upstream.pth", config=tiny_yaml(tiny, tmp_path), class_names=["p", "q", "r"]
    )
    assert_same_detections(detector, tiny)


def test_bare_weights_without_configuration_are_rejected(tiny, tmp_path):
    torch.save({"ema": {"module": content(tiny)["model"]}}, tmp_path / "bare.pth")
    with pytest.raises(
        CheckpointError,
        match=r"bare\.pth: .* not contain its configuration; give its YAML file with -c",
    ):
        load_detector(tmp_path / "bare.pth", class_names=["p", "q", "r"])


@pytest.mark.parametrize(
    "text", ["a: [1", "just words", "", None], ids=["broken", "words", "empty", "none"]
)
def test_damaged_configuration_in_a_checkpoint_is_rejected(tiny, tmp_path, text):
    theirs = {
        "model": content(tiny)["model"],
        "model_files": {"config": {"name": "c.yml", "content": text}},
    }
    torch.save(theirs, tmp_path / "theirs.pth")
    with pytest.raises(CheckpointError, match=r"theirs\.pth: .*(is damaged|give its YAML file)"):
        load_detector(tmp_path / "theirs.pth")


def test_80_unnamed_classes_are_coco(tmp_path):
    cfg = YAMLConfig(S_CONFIG, **merge(NETWORK, {"eval_spatial_size": [64, 96]}))
    torch.save({"ema": {"module": cfg.model.state_dict()}}, tmp_path / "published.pth")
    config = tmp_path / "c.yml"
    config.write_text(yaml.safe_dump(cfg.yaml_cfg))
    _, card = load_detector(tmp_path / "published.pth", config=config)
    assert card.class_names == tuple(COCO_CATEGORIES.values())
    assert (card.class_names[0], card.class_names[79]) == ("person", "toothbrush")


def test_other_unnamed_classes_are_rejected(tiny, tmp_path):
    torch.save(content(tiny)["model"], tmp_path / "bare.pth")
    with pytest.raises(CheckpointError, match="has 3 classes without names; give class names"):
        load_detector(tmp_path / "bare.pth", config=tiny_yaml(tiny, tmp_path))


@pytest.mark.parametrize("names", [["a", "b"], ["a", "b", "c", "d"]])
def test_wrong_number_of_class_names_is_rejected(tiny, names):
    with pytest.raises(CheckpointError, match=rf"best\.pth.*\[3.* instead of \[{len(names)}"):
        load_detector(tiny.path, class_names=names)


def test_weights_of_another_network_are_rejected(tiny, tmp_path):
    config = tmp_path / "other.yml"
    config.write_text(
        yaml.safe_dump(merge(content(tiny)["config"], {"RTDETRTransformerv2": {"num_layers": 1}}))
    )
    with pytest.raises(CheckpointError, match="contains another model.*unknown.*decoder.layers.1"):
        load_detector(tiny.path, config=config)


def test_typo_in_a_configuration_is_rejected(tiny, tmp_path):
    saved = content(tiny)
    saved["config"]["PResNet"]["freez_norm"] = True
    torch.save(saved, tmp_path / "x.pth")
    with pytest.raises(ConfigError, match="unknown key 'freez_norm'; did you mean 'freeze_norm'"):
        load_detector(tmp_path / "x.pth")


def with_validation_ops(tiny, path, *ops):
    saved = content(tiny)
    saved["config"] = merge(
        saved["config"], {"val_dataloader": {"dataset": {"transforms": {"ops": list(ops)}}}}
    )
    torch.save(saved, path)
    return path


def test_unsupported_validation_transform_is_rejected(tiny, tmp_path):
    path = with_validation_ops(
        tiny,
        tmp_path / "x.pth",
        {"type": "Resize", "size": [96, 160]},
        {"type": "Normalize", "mean": [0, 0, 0], "std": [1, 1, 1]},
    )
    with pytest.raises(ConfigError, match=r"x\.pth: serving does not support .* Normalize, so"):
        load_detector(path)


def test_validation_transforms_of_the_recipes_are_supported(tiny, tmp_path):
    path = with_validation_ops(
        tiny,
        tmp_path / "x.pth",
        {"type": "Resize", "size": [96, 160]},
        {"type": "ConvertPILImage", "dtype": "float32", "scale": True},
    )
    assert_same_detections(load_detector(path)[0], tiny)


def test_sampling_can_be_changed(tiny):
    detector, card = load_detector(tiny.path, sampling="discrete")
    assert card.sampling == "discrete"
    with torch.inference_mode():
        _, _, scores = detector(tiny.images, tiny.sizes_wh)
    assert not torch.allclose(scores, tiny.found[2], atol=0.01)


def test_input_size_can_be_changed(tiny):
    """The weights do not depend on the size: the same network built for the size agrees."""
    detector, card = load_detector(tiny.path, input_size_hw=(64, 96))
    assert (card.input_size_hw, card.trained_size_hw) == ((64, 96), tiny.card.input_size_hw)
    images = random_images(2, (64, 96))
    sizes_wh = torch.tensor([[96, 64], [96, 64]])
    training, _ = load_detector(tiny.path)
    with torch.inference_mode():  # the other one computes anchors and positions for the images
        expected, found = training(images, sizes_wh), detector(images, sizes_wh)
    torch.testing.assert_close(found[2], expected[2], rtol=0, atol=1e-5)
    assert load_detector(tiny.path, input_size_hw=card.trained_size_hw)[1] == tiny.card


@pytest.mark.parametrize("size_hw", [(100, 96), (0, 64), (-32, 64), (64, 1 << 20)])
def test_invalid_input_sizes(tiny, size_hw):
    with pytest.raises(ConfigError, match=f"size = {size_hw[0]} {size_hw[1]}: both must be"):
        load_detector(tiny.path, input_size_hw=size_hw)


def test_trained_sampling_is_the_default(tiny, tmp_path):
    saved = content(tiny)
    trained = {"RTDETRTransformerv2": {"cross_attn_method": "discrete"}}
    saved["config"] = merge(saved["config"], trained)
    torch.save(saved, tmp_path / "dsp.pth")
    assert load_detector(tmp_path / "dsp.pth")[1].sampling == "discrete"
    detector, card = load_detector(tmp_path / "dsp.pth", sampling="default")
    assert card.sampling == "default"
    assert_same_detections(detector, tiny)


@pytest.mark.parametrize(
    ("asked", "focal", "number"),
    [(300, True, 36), (20, True, 20), (36, True, 36), (300, False, 12), (5, False, 5)],
)
def test_number_of_detections_is_limited_by_the_pairs(tiny, tmp_path, asked, focal, number):
    """12 queries and 3 classes give 36 pairs, or 12 with one class per query."""
    saved = content(tiny)
    other = {"use_focal_loss": focal, "RTDETRPostProcessor": {"num_top_queries": asked}}
    saved["config"] = merge(saved["config"], other)
    torch.save(saved, tmp_path / "x.pth")
    detector, card = load_detector(tmp_path / "x.pth")
    assert card.num_detections == number
    with torch.inference_mode():
        labels, boxes, scores = detector(*example_inputs(card))
    assert (labels.shape, boxes.shape, scores.shape) == ((2, number), (2, number, 4), (2, number))


def test_example_inputs_are_deterministic_with_two_sizes(tiny):
    images, sizes = example_inputs(tiny.card)
    assert images.shape == (2, 3, 96, 160)
    assert sizes.tolist() == [[640, 480], [672, 496]]
    assert torch.equal(example_inputs(tiny.card)[0], images)


def test_loading_logs_no_warnings(tiny, caplog):
    with caplog.at_level(logging.WARNING):
        load_detector(tiny.path)
    assert caplog.messages == []


def test_pixel_range_of_the_training_is_kept(tiny, tmp_path):
    assert tiny.card.pixel_range is None
    saved = content(tiny)
    saved["config"]["pixel_range"] = [0, 4095]
    path = tmp_path / "deep.pth"
    torch.save(saved, path)
    assert load_detector(path)[1].pixel_range == (0, 4095)
    other = tiny_yaml(tiny, tmp_path)  # without a range
    assert load_detector(path, config=other)[1].pixel_range == (0, 4095)
