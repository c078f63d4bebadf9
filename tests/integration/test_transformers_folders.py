"""Folders of `transformers`: the same network after reading and writing, in both directions."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    AutoImageProcessor,
    DetrConfig,
    DFineConfig,
    RTDetrConfig,
    RTDetrV2Config,
    RTDetrV2ForObjectDetection,
)
from transformers.models.rt_detr_v2 import modeling_rt_detr_v2 as reference

from rtdetrv2_pytorch.src.core import YAMLConfig
from rtdetrv2_pytorch.src.data.images.preprocess import preprocess
from rtdetrv2_pytorch.src.deploy.detector import load_detector, load_network
from rtdetrv2_pytorch.src.interchange import configuration, folders, names
from rtdetrv2_pytorch.src.misc.errors import CheckpointError, ConfigError
from rtdetrv2_pytorch.src.misc.limits import LimitedMetaDevice
from rtdetrv2_pytorch.src.nn.layers import FrozenBatchNorm2d
from rtdetrv2_pytorch.src.zoo.rtdetr import hybrid_encoder
from rtdetrv2_pytorch.src.zoo.rtdetr.deformable_attention import MSDeformableAttention
from tests.conftest import CONFIGS
from tests.integration.test_transformers_parity import (
    our_config,
    random_images,
    randomize,
)
from tests.transformers_map import ONLY_OURS, VARIANTS, to_their_names

SIZE_HW = (96, 160)
CLASSES = ["cat", "dog", "traffic light", "bird", "street sign", "6", "Katze", "pers\u00f6n"]
OWN = {"thresholds": {"overall": 0.4, "per_class": {"cat": 0.3}}, "pixel_range": [0, 4095]}
# Bottlenecks, frozen norms, an early `eval_idx` and nearest sampling; HGNet and other numbers.
RECIPES = {
    "r50vd_m_dsp_3x": {},
    "hgnetv2_l_6x": {
        "HGNetv2": {"use_lab": True},
        "RTDETRTransformerv2": {"num_points": [2, 2, 2], "num_queries": 90, "num_layers": 2},
    },
}
ALL_CONFIGS = sorted(path.name for path in CONFIGS.glob("*_coco.yml"))


def open_config(name: str, **overrides) -> YAMLConfig:
    """A published configuration without downloads."""
    values = {"PResNet": {"pretrained": False}, "HGNetv2": {"pretrained": False}}
    for section, content in overrides.items():
        known = values.get(section)
        values[section] = {**known, **content} if known else content
    return YAMLConfig(CONFIGS / name, **values)


@dataclass(frozen=True)
class Written:
    name: str
    cfg: YAMLConfig
    folder: Path
    logits: Tensor


@pytest.fixture(scope="module", params=RECIPES)
def written(request, tmp_path_factory) -> Written:
    """A folder with random weights, and the logits of our network."""
    torch.manual_seed(0)
    cfg = open_config(
        f"rtdetrv2_{request.param}_coco.yml",
        eval_spatial_size=list(SIZE_HW),
        num_classes=len(CLASSES),
        **RECIPES[request.param],
    )
    images = random_images(*SIZE_HW)
    randomize(cfg.model, images)
    folder = tmp_path_factory.mktemp(request.param)
    folders.write_folder(folder, cfg, class_names=CLASSES, input_size_hw=SIZE_HW, own=OWN)
    return Written(request.param, cfg, folder, logits(cfg.model, images))


@torch.no_grad()
def logits(model: nn.Module, images: Tensor) -> Tensor:
    outputs = model.eval()(images)
    return outputs.logits if hasattr(outputs, "logits") else outputs["pred_logits"]


def edited(folder: Path, target: Path, file: str = folders.CONFIG, **changes) -> Path:
    """Copy a folder with other values in one JSON file; None deletes a key."""
    target.mkdir(exist_ok=True)
    for path in folder.iterdir():
        if not (target / path.name).exists():
            (target / path.name).symlink_to(path)
    values = json.loads((folder / file).read_text())
    for key, value in changes.items():
        values.pop(key, None)
        if value is not None:
            values[key] = value
    (target / file).unlink()
    (target / file).write_text(json.dumps(values))
    return target


# The same network


def test_our_folder_read_by_us_gives_the_same_logits(written):
    cfg, card = load_network(written.folder)
    assert torch.equal(logits(cfg.model, random_images(*SIZE_HW)), written.logits)
    assert card.class_names == tuple(CLASSES)
    assert card.input_size_hw == SIZE_HW
    assert card.thresholds() == [0.3, *[0.4] * 7]
    assert card.pixel_range == (0, 4095)


def test_transformers_reads_all_weights_and_writes_them_back_unchanged(written, tmp_path):
    theirs, report = RTDetrV2ForObjectDetection.from_pretrained(
        written.folder, output_loading_info=True
    )
    assert not any(report.values()), report
    assert theirs.config.id2label == dict(enumerate(CLASSES))
    assert theirs.config.label2id["dog"] == 1
    images = random_images(*SIZE_HW)
    expected = logits(theirs, images)
    theirs.save_pretrained(tmp_path / "theirs")
    AutoImageProcessor.from_pretrained(written.folder).save_pretrained(tmp_path / "theirs")
    cfg, card = load_network(tmp_path / "theirs")
    assert torch.equal(logits(cfg.model, images), written.logits)
    assert card.input_size_hw == SIZE_HW
    folders.write_folder(
        tmp_path / "again", cfg, class_names=card.class_names, input_size_hw=SIZE_HW, own=OWN
    )
    again = RTDetrV2ForObjectDetection.from_pretrained(tmp_path / "again")
    assert torch.equal(logits(again, images), expected)
    assert json.loads((tmp_path / "again" / folders.CONFIG).read_text()) == json.loads(
        (written.folder / folders.CONFIG).read_text()
    )


def test_logits_are_equal_bit_by_bit_with_the_same_three_formulas(written, monkeypatch):
    """Rounding differs in three places: position embedding, frozen norms, sum of the samples."""

    def embedding(height, width, dim, temperature, device=None):
        return reference.build_2d_sinusoidal_position_embedding(height, width, dim, temperature)[
            None
        ]

    def frozen_norm(self, x):
        norm = reference.RTDetrV2FrozenBatchNorm2d(len(self.weight))
        norm.load_state_dict(self.state_dict())
        return norm(x)

    def attention(self, query, boxes, memory, sizes):
        config = RTDetrV2Config(
            decoder_n_points=self.num_points[0], decoder_method=theirs.config.decoder_method
        )
        module = reference.RTDetrV2MultiscaleDeformableAttention(config)
        state = self.state_dict()
        module.load_state_dict({k.replace("num_points", "n_points"): v for k, v in state.items()})
        return module(
            query,
            encoder_hidden_states=memory,
            reference_points=boxes[:, :, None],
            spatial_shapes=torch.tensor(sizes),
            spatial_shapes_list=sizes,
        )[0]

    theirs = RTDetrV2ForObjectDetection.from_pretrained(written.folder)
    monkeypatch.setattr(hybrid_encoder, "sincos_position_embedding", embedding)
    monkeypatch.setattr(FrozenBatchNorm2d, "forward", frozen_norm)
    monkeypatch.setattr(MSDeformableAttention, "forward", attention)
    cfg, _ = load_network(written.folder)
    images = random_images(*SIZE_HW)
    assert torch.equal(logits(cfg.model, images), logits(theirs, images))


def test_model_object_gives_the_same_logits(written):
    theirs = RTDetrV2ForObjectDetection.from_pretrained(written.folder)
    processor = AutoImageProcessor.from_pretrained(written.folder)
    content = folders.read_model(theirs, processor)
    cfg = YAMLConfig.from_values(content["config"], name="model")
    cfg.model.load_state_dict(content["model"], strict=False)
    assert torch.equal(logits(cfg.model, random_images(*SIZE_HW)), written.logits)
    assert content["eval_spatial_size"] == list(SIZE_HW)


def test_image_processor_computes_the_pixels_of_our_preprocessing(written):
    """The resized pixels are equal; the division by 255 is a multiplication there."""
    processor = AutoImageProcessor.from_pretrained(written.folder)
    generator = np.random.default_rng(0)
    for height, width in ((97, 133), (480, 640), (300, 50)):
        image = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        theirs = processor(Image.fromarray(image), return_tensors="pt")["pixel_values"]
        ours = preprocess([image], SIZE_HW, torch.device("cpu"))
        assert torch.equal(theirs, ours.float() * (1 / 255))
        torch.testing.assert_close(theirs, ours.float() / 255, rtol=1.2e-7, atol=0)


@pytest.mark.parametrize("name", ALL_CONFIGS)
def test_every_published_network_has_a_counterpart(name):
    """Configuration, names and shapes, on the meta device."""
    cfg = open_config(name, RTDETRTransformerv2={"num_denoising": 7})
    config = configuration.to_theirs(cfg, [f"class {i}" for i in range(80)])
    ours = cfg.build_meta_model()
    state = folders._evaluated(ours.state_dict(), config)
    state = names.to_theirs(state, source=name)
    with torch.device("meta"), LimitedMetaDevice(10**9):
        theirs = RTDetrV2ForObjectDetection(RTDetrV2Config.from_dict(config))
    expected = names.to_ours(theirs.state_dict(), source=name)
    mine = names.to_ours(state, source=name)
    assert {k: v.shape for k, v in expected.items()} == {k: v.shape for k, v in mine.items()}
    values, _ = configuration.to_ours(config)
    again = YAMLConfig.from_values(values, name="read back")
    assert configuration.to_theirs(again, [f"class {i}" for i in range(80)]) == config


@pytest.mark.parametrize("variant", VARIANTS)
def test_names_agree_with_the_independent_map_of_the_parity_tests(variant):
    state = dict(our_config(variant).build_meta_model().state_dict())
    expected = to_their_names({k: v for k, v in state.items() if k not in ONLY_OURS})
    written = names.to_theirs(state, source="ours")
    assert len(written) == len(expected) > 500
    assert names.to_ours(expected, source="theirs").keys() == state.keys() - ONLY_OURS
    assert names.to_ours(written, source="file").keys() == state.keys() - ONLY_OURS
    newer = {  # the names of version 5, see the conversions of `transformers`
        name.replace("encoder.aifi", "encoder.encoder")
        .replace("o_proj", "out_proj")
        .replace(".mlp.fc", ".fc")
        for name in expected
    }
    assert written.keys() == newer


# What one side cannot hold


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("RTDETRTransformerv2", {"num_points": [4, 4, 2]}, r"num_points = \[4, 4, 2\]"),
        ("RTDETRTransformerv2", {"query_select_method": "one2many"}, "query_select_method = 'one2"),
        ("RTDETRTransformerv2", {"learn_query_content": True}, "learn_query_content = True"),
        ("RTDETRTransformerv2", {"eps": 0.02}, r"eps = 0\.02"),
        ("RTDETRTransformerv2", {"num_levels": 5, "num_points": 4}, "num_levels = 5"),
        ("RTDETRTransformerv2", {"dropout": 0.1}, r"RTDETRTransformerv2.dropout = 0\.1"),
        ("HybridEncoder", {"depth_mult": 0.67}, r"depth_mult = 0\.67"),
        ("HybridEncoder", {"pe_temperature": 0.5}, r"pe_temperature = 0\.5"),
        ("PResNet", {"act": "silu"}, "PResNet.act = 'silu'"),
    ],
)
def test_networks_that_transformers_cannot_hold_are_named(section, values, message):
    cfg = open_config("rtdetrv2_r18vd_120e_coco.yml", **{section: values})
    with pytest.raises(ConfigError, match=message):
        configuration.to_theirs(cfg, ["a"] * 80)


def test_softmax_scores_are_refused():
    cfg = open_config("rtdetrv2_r18vd_120e_coco.yml", use_focal_loss=False)
    with pytest.raises(ConfigError, match="use_focal_loss = False: transformers cannot hold"):
        configuration.to_theirs(cfg, ["a"] * 80)


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """A folder of the S model."""
    cfg = open_config("rtdetrv2_r18vd_120e_coco.yml", num_classes=2)
    folder = tmp_path_factory.mktemp("small")
    folders.write_folder(folder, cfg, class_names=["a", "b"], input_size_hw=(64, 96), own={})
    return folder


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "d_fine"}, "model_type = 'd_fine' is not RT-DETRv2"),
        ({"normalize_before": True}, "normalize_before = True: RT-DETRv2 has False"),
        ({"eval_size": [640, 640]}, r"eval_size = \[640, 640\]"),
        ({"decoder_n_levels": 4}, "decoder_n_levels = 4 and num_feature_levels = 3"),
        ({"encoder_activation_function": "gelu_new"}, "enc_act = 'gelu_new'"),
        ({"backbone_config": {"model_type": "resnet"}}, "backbone_config.model_type = 'resnet'"),
        (
            {"backbone_config": {"model_type": "rt_detr_resnet", "depths": [3, 4, 6, 4]}},
            r"backbone_config: depths = \[3, 4, 6, 4\]: not a backbone",
        ),
        ({"id2label": {"0": "a", "2": "b"}}, r"id2label: labels are \[0, 2\], not 0 to 1"),
        ({"num_queries": "many"}, "num_top_queries = 'many'"),
        ({"id2label": 5}, r"config.json: damaged"),
        ({"decoder_in_channels": 3}, r"config.json: damaged"),
        ({"d_model": -1}, "hidden_dim = -1"),
        ({"d_model": 128}, "contains another model"),
    ],
)
def test_foreign_and_damaged_configurations_are_named(small, tmp_path, changes, message):
    with pytest.raises(CheckpointError, match=message):
        load_detector(edited(small, tmp_path / "x", **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"do_normalize": True}, "do_normalize = True: RT-DETRv2 has False"),
        ({"resample": 3}, "resample = 3"),
        ({"rescale_factor": 1.0}, r"rescale_factor = 1\.0"),
        ({"size": {"shortest_edge": 800}}, "size = .*: give height and width"),
    ],
)
def test_other_preprocessing_is_refused(small, tmp_path, changes, message):
    with pytest.raises(CheckpointError, match=message):
        load_detector(edited(small, tmp_path / "x", folders.PROCESSOR, **changes))


@pytest.mark.parametrize("other", [DetrConfig, DFineConfig, RTDetrConfig])
def test_folders_of_other_models_are_named(tmp_path, other):
    other().save_pretrained(tmp_path)
    (tmp_path / folders.WEIGHTS).write_bytes(b"")
    with pytest.raises(
        CheckpointError, match=f"model_type = '{other.model_type}' is not RT-DETRv2"
    ):
        load_detector(tmp_path)


def test_damaged_files_are_named(small, tmp_path):
    folder = edited(small, tmp_path / "x")
    weights = folder / folders.WEIGHTS
    content = weights.read_bytes()
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"neither model.safetensors nor pytorch_model.bin"):
        load_detector(folder)
    weights.write_bytes(content[:-1000])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: damaged or truncated"):
        load_detector(folder)
    (folder / folders.CONFIG).write_text("[1, 2]")
    with pytest.raises(CheckpointError, match=r"config\.json: not readable \(not an object\)"):
        load_detector(folder)


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_weights_in_several_files(small, tmp_path, suffix):
    folder = edited(small, tmp_path / "x")
    state = load_file(folder / folders.WEIGHTS)
    (folder / folders.WEIGHTS).unlink()
    stem = {".safetensors": "model", ".bin": "pytorch_model"}[suffix]
    save = {".safetensors": save_file, ".bin": torch.save}[suffix]
    places = {}
    for number in (1, 2, 3):
        file = f"{stem}-{number:05}-of-00003{suffix}"
        part = dict(list(state.items())[number - 1 :: 3])
        save(part, folder / file)
        places |= dict.fromkeys(part, file)
    index = folder / f"{stem}{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
    whole, several = folders.read_folder(small)["model"], folders.read_folder(folder)["model"]
    assert whole.keys() == several.keys()
    assert all(torch.equal(whole[name], several[name]) for name in whole)
    assert load_detector(folder)[1].class_names == load_detector(small)[1].class_names

    lost = sorted(places)[0]
    index.write_text(json.dumps({"weight_map": {**places, "other": places[lost]}}))
    with pytest.raises(CheckpointError, match=r"lack 1 of the tensors, such as other; save"):
        folders.read_folder(folder)
    for bad in ({lost: f"../{places[lost]}"}, {lost: 3}, [lost], {lost: "config.json"}):
        index.write_text(json.dumps({"weight_map": bad}))
        with pytest.raises(CheckpointError, match=r"'weight_map' does not name files .* of its"):
            folders.read_folder(folder)
    index.write_text(json.dumps({"weight_map": places}))
    (folder / places[lost]).unlink()
    with pytest.raises(CheckpointError, match=r"is missing; download it into the same folder"):
        folders.read_folder(folder)


def test_pickled_weights_are_read_without_running_code(small, tmp_path):
    folder = edited(small, tmp_path / "x")
    theirs = RTDetrV2ForObjectDetection.from_pretrained(small)
    (folder / folders.WEIGHTS).unlink()
    torch.save(theirs.state_dict(), folder / "pytorch_model.bin")
    cfg, card = load_network(folder)
    images = random_images(64, 96)
    assert torch.equal(logits(cfg.model, images), logits(load_network(small)[0].model, images))
    assert card.input_size_hw == (64, 96)
    torch.save({"model.a": Path}, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="would run code"):
        load_network(folder)


def test_values_that_files_omit_are_those_of_transformers(tmp_path):
    """A file may contain only what differs from the defaults."""
    config = RTDetrV2Config(num_labels=3)
    complete, _ = configuration.to_ours(config.to_dict())
    brief, names_of_brief = configuration.to_ours({"model_type": "rt_detr_v2", "num_labels": 3})
    assert brief == complete
    assert names_of_brief == ["LABEL_0", "LABEL_1", "LABEL_2"]
