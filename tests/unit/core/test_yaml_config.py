"""YAMLConfig: published files, parts, classes and checks."""

import json
import logging
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from rtdetrv2_pytorch.src.core import ConfigError, YAMLConfig
from rtdetrv2_pytorch.src.core.yaml_files import get
from tests.goldens import load_config_files, load_models
from tests.tiny import CONFIGS, data_section, tiny_config

MODELS = load_models()
FILES = load_config_files()
S = CONFIGS / "rtdetrv2" / "rtdetrv2_r18vd_120e_coco.yml"


# Published files


@pytest.mark.parametrize("name", FILES)
def test_published_file_has_its_includes_and_values(name):
    from rtdetrv2_pytorch.src.core.yaml_files import read_layers

    own = read_layers(CONFIGS / name)[-1].values
    flat = dict(flatten(own))
    expected = {"epoches" if k == "epochs" else k: v for k, v in FILES[name]["sets"].items()}
    assert flat == expected
    text = (CONFIGS / name).read_text()
    for include in FILES[name]["includes"]:
        assert f"- {include}\n" in text


def flatten(values, prefix=""):
    for key, value in values.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


@pytest.mark.parametrize("name", MODELS)
def test_model_resolves_to_published_values(name):
    cfg = YAMLConfig(CONFIGS / "rtdetrv2" / f"{name}.yml")
    values, model = cfg.yaml_cfg, MODELS[name]
    training = model["training"]
    settings = cfg.settings
    assert cfg.epoches == training["epochs"]
    for key in ("use_amp", "use_ema", "clip_max_norm", "sync_bn", "find_unused_parameters"):
        assert getattr(settings, key) == training[key], key
    for key in ("print_freq", "checkpoint_freq", "output_dir", "tuning"):
        assert getattr(settings, key) == training[key], key
    for key in ("num_classes", "remap_mscoco_category"):
        assert values.get(key, False) == training[key], key
    for key in ("lr_scheduler", "ema", "scaler"):
        assert values[key] == training[key], key
    assert values["lr_warmup_scheduler"] == training["lr_warmup"]

    loader, val = values["train_dataloader"], values["val_dataloader"]
    for prefix, section in (("train", loader), ("val", val)):
        for key in ("total_batch_size", "num_workers", "shuffle", "drop_last"):
            assert section[key] == training[f"{prefix}_{key}"], key
        assert section["dataset"]["transforms"]["ops"] == training[f"{prefix}_transforms"]
    assert loader["dataset"]["transforms"]["policy"] == training["train_transform_policy"]
    assert loader["collate_fn"] == training["collate"]

    encoder = {k: v for k, v in model["encoder"].items() if k in values["HybridEncoder"]}
    assert {k: values["HybridEncoder"][k] for k in encoder} == encoder
    decoder = {k: v for k, v in model["decoder"].items() if k in values["RTDETRTransformerv2"]}
    ours = {k: values["RTDETRTransformerv2"][k] for k in decoder}
    assert ours == decoder
    criterion = values["RTDETRCriterionv2"]
    assert criterion["losses"] == model["criterion"]["losses"]
    assert criterion["weight_dict"] == model["criterion"]["weight_dict"]
    assert criterion["alpha"] == model["criterion"]["alpha"]


# Parts


@pytest.fixture
def cfg(tmp_path, digits):
    return tiny_config(tmp_path / "out", digits)


def test_public_interface(cfg):
    """Names and arguments are those of the published code."""
    assert cfg.output_dir.name == "out"
    assert cfg.epoches == 2
    outputs = cfg.model.eval()(torch.rand(1, 3, 64, 96))
    sizes = torch.tensor([[96, 64]])
    assert len(cfg.postprocessor(outputs, sizes)[0]["scores"]) == 20
    assert sum(len(g["params"]) for g in cfg.optimizer.param_groups) == len(
        [p for p in cfg.model.parameters() if p.requires_grad]
    )
    assert cfg.lr_scheduler.optimizer is cfg.optimizer
    assert cfg.lr_warmup_scheduler.lr_scheduler is cfg.lr_scheduler
    assert cfg.ema.module is not cfg.model
    assert cfg.scaler is None  # use_amp is off
    images, targets = next(iter(cfg.train_dataloader))
    cfg.model.train()
    outputs = cfg.model(images, targets=targets)
    losses = cfg.criterion(outputs, targets, epoch=0, step=0, global_step=0)
    assert sum(losses.values()).isfinite()
    pairs = cfg.criterion.matcher(outputs, targets)["indices"]
    assert [len(boxes) for _, boxes in pairs] == [len(t["labels"]) for t in targets]
    cfg.ema.update(cfg.model)
    assert cfg.ema.updates == 1
    assert len(cfg.val_dataloader.dataset) == 4
    assert cfg.evaluator.iou_types == ["bbox"]
    assert Path(cfg.writer.log_dir) == cfg.output_dir / "summary"


def test_parts_are_built_once_and_can_be_replaced(cfg):
    assert cfg.model is cfg.model
    mine = torch.nn.Sequential(OrderedDict(fc=torch.nn.Linear(2, 2), norm=torch.nn.LayerNorm(2)))
    cfg.model = mine
    assert cfg.optimizer.param_groups[-1]["params"][0] is mine.fc.weight


def test_edited_values_are_used_and_checked(cfg):
    cfg.yaml_cfg["RTDETRTransformerv2"]["num_queries"] = 5
    assert cfg.model.decoder.num_queries == 5
    cfg.yaml_cfg["RTDETRPostProcessor"]["num_top_querys"] = 3
    with pytest.raises(ConfigError, match="did you mean 'num_top_queries'"):
        _ = cfg.postprocessor


def test_configs_are_independent(tmp_path, digits):
    def keys(cfg):
        return {k: tuple(v.shape) for k, v in cfg.model.state_dict().items()}

    def network(**decoder):
        return tiny_config(tmp_path, digits, RTDETRTransformerv2=decoder)

    first = keys(network())
    second = keys(network(num_layers=1, num_queries=3))
    assert first != second
    assert keys(network()) == first


def test_configs_do_not_share_values(tmp_path, digits):
    a, b = tiny_config(tmp_path, digits), tiny_config(tmp_path, digits)
    a.yaml_cfg["optimizer"]["params"].append({"params": "x", "lr": 1.0})
    assert len(b.yaml_cfg["optimizer"]["params"]) == 1


# Classes


def test_classes_come_from_training_data(cfg):
    assert cfg.yaml_cfg["num_classes"] == 80  # of the base configuration, until the data is read
    assert cfg.model.decoder.num_classes == 10
    assert cfg.yaml_cfg["num_classes"] == 10
    assert cfg.yaml_cfg["remap_mscoco_category"] is False
    assert cfg.criterion.num_classes == 10
    assert cfg.class_names == list("0123456789")


def test_wrong_num_classes_is_rejected(tmp_path, digits):
    cfg = tiny_config(tmp_path, digits, num_classes=4)
    with pytest.raises(ConfigError, match=r"num_classes = 4, but .* has 10 classes \(0, 1, 2, 3"):
        _ = cfg.model


def test_matching_num_classes_is_accepted(tmp_path, digits):
    assert tiny_config(tmp_path, digits, num_classes=10).model.decoder.num_classes == 10


def test_coco_remapping_of_other_data_is_rejected(tmp_path, digits):
    cfg = tiny_config(tmp_path, digits, remap_mscoco_category=True)
    with pytest.raises(ConfigError, match="does not have the 80 COCO categories; remove it"):
        _ = cfg.model


def test_num_classes_without_training_data():
    cfg = YAMLConfig(S, PResNet={"pretrained": False})
    assert cfg.categories is None
    assert cfg.model.decoder.num_classes == 80


def test_validation_uses_labels_of_training(tmp_path, digits):
    ann = json.loads((digits / "annotations" / "instances_val.json").read_text())
    for category in ann["categories"]:
        category["id"] += 100
    for annotation in ann["annotations"]:
        annotation["category_id"] += 100
    shifted = tmp_path / "instances_val.json"
    shifted.write_text(json.dumps(ann))
    plain = tiny_config(tmp_path, digits)
    other = tiny_config(tmp_path, digits, val_dataloader={"dataset": {"ann_file": str(shifted)}})
    labels = plain.val_dataset.annotations.labels
    assert other.val_dataset.annotations.labels.tolist() == labels.tolist()


# Sizes


@pytest.mark.parametrize(
    ("section", "values"),
    [
        ("RTDETRTransformerv2", {"dim_feedforward": 10**9}),
        ("HybridEncoder", {"dim_feedforward": 10**9}),
        ("HybridEncoder", {"num_encoder_layers": 10**6, "dim_feedforward": 10**6}),
    ],
)
def test_oversized_network_is_rejected(section, values):
    cfg = YAMLConfig(
        CONFIGS / "rtdetrv2" / "rtdetrv2_r18vd_120e_coco.yml",
        **{section: values, "PResNet": {"pretrained": False}},
    )
    with pytest.raises(ConfigError, match=r"the network has more than 4e\+09 elements"):
        _ = cfg.model


def test_meta_model_uses_no_memory_and_no_random_numbers():
    cfg = YAMLConfig(
        CONFIGS / "rtdetrv2" / "rtdetrv2_r18vd_120e_coco.yml", PResNet={"pretrained": True}
    )
    before = torch.get_rng_state()
    model = cfg.build_meta_model()
    assert torch.equal(torch.get_rng_state(), before)
    assert {p.device.type for p in model.parameters()} == {"meta"}
    assert cfg.yaml_cfg["PResNet"]["pretrained"] is True


# Checks


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"PResNet": {"freez_norm": True}}, r"PResNet: unknown key 'freez_norm'; did you mean"),
        ({"HGNetv2": {"nam": "L"}}, r"HGNetv2: unknown key 'nam'"),  # not even selected
        ({"HGNetv2": 3}, r"HGNetv2 = 3: give a mapping of its keys"),
        ({"epoch": 3}, r"unknown key 'epoch'; did you mean 'epoches'"),
        ({"num_queries": 500}, r"'num_queries'; did you mean RTDETRTransformerv2.num_queries\?"),
        ({"lr": 1e-4}, r"unknown key 'lr'; did you mean optimizer.lr\?"),
        ({"model": "RTDETRX"}, r"model: unknown component 'RTDETRX'; did you mean 'RTDETR'"),
        (
            {"eval_spatial_size": [300, 320]},
            r"eval_spatial_size\[0\] = 300: .* a multiple of 32",
        ),
        (
            {"eval_spatial_size": [320, 8224]},
            r"eval_spatial_size\[1\] = 8224: .* or equal to 8192",
        ),
        ({"optimizer": {"lr": "fast"}}, r"optimizer.lr = 'fast'"),
        (
            {"optimizer": {"lr": -1}},
            r"^overrides: optimizer.lr = -1: give a number greater than 0$",
        ),
        ({"AdamW": {"lr": -1}}, r"^overrides: AdamW.lr = -1: give a number greater than 0$"),
        ({"epoches": 0}, r"^overrides: epoches = 0: give a number greater than or equal to 1$"),
        ({"checkpoint_freq": -1}, r"^overrides: checkpoint_freq = -1: .* or equal to 0$"),
        ({"grad_accum_steps": 0}, r"^overrides: grad_accum_steps = 0: .* or equal to 1$"),
        ({"patience": -2}, r"^overrides: patience = -2: .* or equal to 0$"),
        ({"epoches": "many"}, r"epoches = 'many'"),
        ({"amp_dtype": "fp8"}, r"amp_dtype = 'fp8': give 'auto', 'bfloat16'"),
        (
            {
                "train_dataloader": {
                    "dataset": {"transforms": {"ops": [{"type": "Resize", "size": [640, 640]}]}}
                }
            },
            r"must end with {type: ConvertBoxes, fmt: cxcywh, normalize: true}",
        ),
        ({"device": "gpu0"}, r"device = 'gpu0'"),
        (
            {"train_dataloader": {"dataset": {"transforms": {"policy": {"ops": ["RandomZoom"]}}}}},
            r"transforms.policy.ops: unknown operation 'RandomZoom'; did you mean 'RandomZoomOut'",
        ),
        ({"RTDETRCriterionv2": {"weight_dict": {"loss_vlf": 1}}}, r"weight_dict.loss_vlf = .*vfl'"),
        ({"optimizer": {"params": [{"params": "^x", "lrr": 1}]}}, r"unknown key 'lrr'; did you"),
    ],
)
def test_invalid_values_are_rejected_by_the_constructor(overrides, message):
    with pytest.raises(ConfigError, match=message):
        YAMLConfig(S, **overrides)


def test_conflicting_shared_value_logs_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        cfg = YAMLConfig(S, HybridEncoder={"eval_spatial_size": [320, 320]})
    assert "HybridEncoder.eval_spatial_size = [320, 320] is overridden" in caplog.text
    assert cfg.yaml_cfg["eval_spatial_size"] == [640, 640]


def test_total_batch_size_must_be_divisible_by_ranks(tmp_path, digits, monkeypatch):
    cfg = tiny_config(tmp_path, digits)
    monkeypatch.setattr("rtdetrv2_pytorch.src.misc.distributed.world_size", lambda: 3)
    with pytest.raises(ConfigError, match="total_batch_size = 2: cannot be divided among 3 ranks"):
        _ = cfg.train_dataloader


def test_missing_part_is_named(cfg):
    cfg.yaml_cfg.pop("criterion")
    with pytest.raises(ConfigError, match="'criterion' is not configured"):
        _ = cfg.criterion


def test_top_level_batch_size_applies_to_both_loaders(tmp_path, digits):
    cfg = tiny_config(tmp_path, digits, batch_size=3, num_workers=0)
    assert cfg.train_dataloader.epoch_sampler.batch_size == 3
    assert cfg.val_dataloader.epoch_sampler.batch_size == 3


def test_top_level_cache_is_the_default_of_both_datasets(tmp_path, digits):
    own = {"val_dataloader": {"dataset": {"cache": "none"}}}
    cfg = tiny_config(tmp_path, digits, cache="ram", **own)
    assert (cfg.train_dataset.cache.kind, cfg.val_dataset.cache.kind) == ("ram", "none")
    with pytest.raises(ConfigError, match="cache = 'sram'"):
        tiny_config(tmp_path, digits, cache="sram").check()


# Weights


def test_tuning_skips_pretrained_backbone(tmp_path, digits):
    cfg = tiny_config(tmp_path, digits, tuning="some.pth", PResNet={"pretrained": True})
    assert cfg.model is not None  # would download without internet
    assert get(cfg.yaml_cfg, ("PResNet", "pretrained")) is False


def test_resume_overrides_tuning_of_the_file():
    name = "rtdetrv2_r18vd_dsp_3x_coco.yml"
    assert YAMLConfig(S.with_name(name)).settings.tuning.startswith("https://")
    assert YAMLConfig(S.with_name(name), resume="last.pth").settings.tuning is None


def test_overlapping_optimizer_rules_are_rejected(tmp_path, digits):
    rules = [{"params": "backbone", "lr": 1.0}, {"params": "norm", "weight_decay": 0.0}]
    cfg = tiny_config(tmp_path, digits, optimizer={"params": rules})
    with pytest.raises(ConfigError, match="optimizer.params: parameter .* is matched by"):
        _ = cfg.optimizer


def test_scheduler_types(tmp_path, digits):
    rates = {}
    for name in ("MultiStepLR", "CosineAnnealingLR", "FlatCosineLR", "OneCycleLR"):
        section = {"type": name} | ({"max_lr": 1e-4} if name == "OneCycleLR" else {})
        cfg = tiny_config(tmp_path, digits, epoches=4, lr_scheduler=section)
        rates[name] = cfg.lr_scheduler.get_last_lr()[0]
    assert rates["MultiStepLR"] == rates["CosineAnnealingLR"] == rates["FlatCosineLR"] == 1e-4
    assert rates["OneCycleLR"] == pytest.approx(1e-4 / 25)


def test_config_does_not_depend_on_current_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert YAMLConfig(S, PResNet={"pretrained": False}).epoches == 120
    assert list(tmp_path.iterdir()) == []


def test_user_file_includes_published_file(tmp_path, digits):
    mine = tmp_path / "mine.yml"
    mine.write_text(
        f"__include__: ['{S}']\nepochs: 3\nBatchImageCollateFuncion: {{scales: null}}\n"
    )
    cfg = YAMLConfig(mine, **data_section(digits))
    assert cfg.epoches == 3


def test_null_resets_a_shared_value(tmp_path, digits):
    cfg = tiny_config(tmp_path, digits, num_classes=None)
    assert cfg.model.decoder.num_classes == 10


def test_tuning_overrides_resume_of_the_file(tmp_path):
    path = tmp_path / "model_config.yml"
    path.write_text(f"__include__: [{S}]\nresume: last.pth\n")
    again = YAMLConfig(path, tuning="best.pth")
    assert (again.settings.tuning, again.settings.resume) == ("best.pth", None)


def test_missing_gpu_is_rejected(tmp_path, digits, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert tiny_config(tmp_path, digits, device="cuda:0").device == torch.device("cuda", 0)
    with pytest.raises(ConfigError, match=r"device = 'cuda:1': torch sees 1 GPUs here; choose"):
        _ = tiny_config(tmp_path, digits, device="cuda:1").device


def test_validation_data_with_other_classes_is_rejected(tmp_path, digits):
    cfg = tiny_config(
        tmp_path,
        digits,
        num_classes=80,
        remap_mscoco_category=False,
        train_dataloader={"dataset": {"ann_file": str(tmp_path / "none.json")}},
    )
    with pytest.raises(ConfigError, match="num_classes = 80, but that of val_dataloader"):
        _ = cfg.evaluator
