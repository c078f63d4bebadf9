"""Complete trainings of a tiny network: files, events and errors."""

import functools
import itertools
import json
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
import yaml

from rtdetrv2_pytorch.src.core import YAMLConfig
from rtdetrv2_pytorch.src.misc.errors import CheckpointError, ConfigError, DatasetError
from rtdetrv2_pytorch.src.misc.weights import load_checkpoint, model_state
from rtdetrv2_pytorch.src.solver import DetSolver, network, stopwatch
from rtdetrv2_pytorch.src.solver.events import TrainingEvents
from rtdetrv2_pytorch.src.solver.run import TrainingRun
from rtdetrv2_pytorch.src.solver.step import backward
from rtdetrv2_pytorch.src.solver.stopwatch import SECTIONS
from rtdetrv2_pytorch.src.structures import StepBatch
from tests.tiny import WHOLE_BACKBONE, tiny_config


class Recorder(TrainingEvents):
    def __init__(self):
        self.calls = []
        self.reports = []

    def train_started(self, plan):
        self.calls.append("train_started")
        self.plan = plan

    def epoch_started(self, epoch, num_steps):
        self.calls.append(("epoch_started", epoch, num_steps))

    def step_finished(self, report):
        self.calls.append(("step", report.epoch, report.step))

    def evaluation_step_finished(self, step, num_steps):
        self.calls.append(("evaluation", step, num_steps))

    def epoch_finished(self, report):
        self.calls.append(("epoch_finished", report.epoch))
        self.reports.append(report)

    def train_finished(self, result):
        self.calls.append("train_finished")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, digits):
    folder = tmp_path_factory.mktemp("trained")
    events = Recorder()
    cfg = tiny_config(folder, digits, epoches=2, checkpoint_freq=1)
    return folder, DetSolver(cfg, events=events).fit(), events


def test_second_training_in_one_output_folder_is_refused(tmp_path, digits):
    """The first one is another process, because a process may nest its own locks."""
    held = (
        "import fcntl, sys; file = open(sys.argv[1], 'a+'); fcntl.lockf(file, fcntl.LOCK_EX); "
        "print('locked', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", held, tmp_path / ".lock"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        process.stdout.readline()
        (tmp_path / ".lock").write_text("process 7 on host")
        with pytest.raises(
            ConfigError, match=r"in use by process 7 on host; .* another output_dir"
        ):
            DetSolver(tiny_config(tmp_path, digits)).fit()
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]
        process.communicate("\n")


def test_order_of_events(trained):
    one_epoch = [
        *(("step", 0, i) for i in range(3)),
        ("evaluation", 1, 2),
        ("evaluation", 2, 2),
        ("epoch_finished", 0),
    ]
    calls = trained[2].calls
    assert calls[0] == "train_started"
    assert calls[1] == ("epoch_started", 0, 3)
    assert calls[2:8] == one_epoch
    assert calls[8] == ("epoch_started", 1, 3)
    assert calls[-1] == "train_finished"


def test_output_files(trained):
    folder, result, _ = trained
    names = {p.name for p in folder.iterdir()}
    assert names == {
        ".lock",
        "best.pth",
        "last.pth",
        "checkpoint0000.pth",
        "checkpoint0001.pth",
        "model_config.yml",
        "log.jsonl",
        "summary",
    }
    assert set(result.checkpoints) == {"best", "last", "checkpoint0000", "checkpoint0001"}
    assert any((folder / "summary").iterdir())
    assert (result.best_epoch, result.last_epoch) in {(0, 1), (1, 1)}


def test_epoch_reports_contain_time_shares_and_bottleneck(trained):
    folder, _, events = trained
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    for line, report in zip(
        [e for e in lines if e["event"] == "epoch"], events.reports, strict=True
    ):
        assert tuple(report.time_shares) == SECTIONS
        assert sum(report.time_shares.values()) == pytest.approx(1)
        assert report.bottleneck.split(":")[0].endswith(" bound")
        assert line["time_shares"] == report.time_shares
        assert line["verdict"] == report.bottleneck


def test_stopwatch_measures_every_section_of_a_step_once(tmp_path, digits, monkeypatch):
    """The fake clock advances by one second per reading."""
    ticks = itertools.count()
    clock = SimpleNamespace(perf_counter=lambda: float(next(ticks)))
    monkeypatch.setattr(stopwatch, "time", clock)
    events = Recorder()
    DetSolver(tiny_config(tmp_path, digits, epoches=1), events=events).fit()
    (report,) = events.reports
    in_training = {n: share for n, share in report.time_shares.items() if n != "evaluation"}
    rest = 1 - report.time_shares["evaluation"]
    assert in_training == pytest.approx(dict.fromkeys(in_training, rest / 7))
    assert len(in_training) == 7


def test_checkpoint_metadata(trained):
    best = load_checkpoint(trained[0] / "best.pth")
    assert best["format_version"] == 1
    assert best["class_names"] == list("0123456789")
    assert best["category_ids"] == list(range(10))
    assert best["eval_spatial_size"] == [64, 96]
    assert best["config"]["epoches"] == 2
    assert best["metrics"]["AP"] == trained[1].best.stats["AP"]
    assert set(best["thresholds"]["per_class"]) == set("0123456789")
    assert "optimizer" not in best


def test_best_checkpoint_is_verified(trained):
    result = trained[1]
    assert result.confirmed.stats == pytest.approx(result.best.stats, abs=1e-6)
    assert result.confirmed.losses == pytest.approx(result.best.losses, rel=1e-4)


def test_saved_configuration_is_complete_and_loads(trained, digits):
    path = trained[0] / "model_config.yml"
    values = yaml.safe_load(path.read_text())
    assert "__include__" not in values
    assert values["num_classes"] == 10
    # 3 steps an epoch, 2 epochs: 5 % of 6 is less than one step
    assert values["lr_warmup_scheduler"]["warmup_duration"] == 1
    loaded = YAMLConfig(path)
    assert loaded.notes == []
    assert (
        loaded.model.state_dict().keys() == load_checkpoint(trained[0] / "best.pth")["model"].keys()
    )


def test_training_plan_lists_changed_settings(trained):
    changes = "\n".join(trained[2].plan.changes)
    assert "lr_warmup_scheduler.warmup_duration: 2000 -> 1 step, 5 % of 6" in changes
    assert "policy.epoch: 117 -> 1, scaled from 120 to 2 epochs" in changes


def test_val_equals_the_evaluation_during_training(trained, digits, tmp_path):
    best = str(trained[0] / "best.pth")
    cfg = tiny_config(tmp_path, digits, resume=best)
    evaluation = DetSolver(cfg).val()
    assert evaluation.stats == pytest.approx(trained[1].best.stats, abs=1e-6)


def test_val_at_another_image_size(trained, digits, tmp_path):
    best = str(trained[0] / "best.pth")
    cfg = tiny_config(tmp_path, digits, resume=best, eval_spatial_size=[96, 128])
    evaluation = DetSolver(cfg).val()
    assert evaluation.num_images == 4
    assert cfg.model.decoder.anchors.shape[1] == 24 * 32 + 12 * 16 + 6 * 8


def with_classes(folder, digits, names):
    """Write a dataset with the objects of some digits, in the order of `names`."""
    ids = {int(name): i for i, name in enumerate(names, start=1) if name.isdigit()}
    for split in ("train", "val"):
        ann = json.loads((digits / "annotations" / f"instances_{split}.json").read_text())
        ann["annotations"] = [
            {**a, "category_id": ids[a["category_id"]]}
            for a in ann["annotations"]
            if a["category_id"] in ids
        ]
        ann["categories"] = [{"id": i, "name": name} for i, name in enumerate(names, start=1)]
        (folder / "annotations").mkdir(parents=True, exist_ok=True)
        (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(ann))
        (folder / split).symlink_to(digits / split)
    return folder


def test_tuning_matches_classes_by_name(trained, digits, tmp_path, caplog):
    folder = with_classes(tmp_path / "two", digits, ["7", "3"])
    best = trained[0] / "best.pth"
    cfg = tiny_config(tmp_path / "out", folder, tuning=str(best), epoches=1)
    with caplog.at_level("INFO"):
        network.load_pretrained(cfg, str(best))
    assert "classes_carried_over=2" in caplog.text
    theirs = model_state(load_checkpoint(best))["decoder.enc_score_head.weight"]
    ours = cfg.model.state_dict()["decoder.enc_score_head.weight"]
    assert torch.equal(ours, theirs[[7, 3]])


def test_evaluation_uses_the_rows_of_the_classes_of_the_data(trained, digits, tmp_path):
    best = trained[0] / "best.pth"
    folder = with_classes(tmp_path / "two", digits, ["7", "3"])
    for given in ({"resume": str(best)}, {"tuning": str(best)}):
        cfg = tiny_config(tmp_path / "out", folder, **given)
        DetSolver(cfg).val()
        theirs, ours = model_state(load_checkpoint(best)), cfg.model.state_dict()
        for key in ("enc_score_head.weight", "dec_score_head.0.bias"):
            assert torch.equal(ours[f"decoder.{key}"], theirs[f"decoder.{key}"][[7, 3]])
        assert torch.equal(
            ours["decoder.enc_output.proj.weight"], theirs["decoder.enc_output.proj.weight"]
        )


def test_evaluation_on_an_unknown_class_raises(trained, digits, tmp_path):
    folder = with_classes(tmp_path / "more", digits, ["7", "bird"])
    cfg = tiny_config(tmp_path / "out", folder, resume=str(trained[0] / "best.pth"))
    with pytest.raises(CheckpointError, match="was not trained on 'bird', classes of the data"):
        DetSolver(cfg).val()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["7", "3"], r"\(removed '0', '1', '2', '4', '5' and 3 more\)"),
        (list("0123456789") + ["bird"], r"\(added 'bird'\)"),
        (list("9876543210"), r"\(another order\)"),
    ],
)
def test_resume_with_other_classes_offers_tuning(trained, digits, tmp_path, names, message):
    folder = with_classes(tmp_path / "other", digits, names)
    cfg = tiny_config(tmp_path / "out", folder, resume=str(trained[0] / "last.pth"))
    with pytest.raises(CheckpointError, match=f"{message}.*tuning"):
        TrainingRun.create(cfg)


def test_published_weights_carry_coco_classes_over(digits, tmp_path):
    """Published checkpoints have 80 classes without names: person is 0, bird 14."""
    folder = with_classes(tmp_path / "birds", digits, ["7", "bird", "person"])
    cfg = tiny_config(tmp_path / "out", folder, epoches=1)
    published = {k: v.clone() for k, v in cfg.model.state_dict().items()}
    for key in (f"decoder.{k}" for k in cfg.model.decoder.class_keys):
        rows = 81 if key.endswith("embed.weight") else 80
        published[key] = torch.randn(rows, *published[key].shape[1:])
    torch.save({"ema": {"module": published}}, tmp_path / "published.pth")
    before = cfg.model.state_dict()["decoder.enc_score_head.weight"][0].clone()
    network.load_pretrained(cfg, str(tmp_path / "published.pth"))
    theirs = published["decoder.enc_score_head.weight"]
    ours = cfg.model.state_dict()["decoder.enc_score_head.weight"]
    assert torch.equal(ours[1:], theirs[[14, 0]])
    assert torch.equal(ours[0], before)


def test_tuning_with_weights_of_another_model_raises(tmp_path, digits):
    torch.save({"model": {"other": torch.zeros(1)}}, tmp_path / "other.pth")
    cfg = tiny_config(tmp_path, digits, tuning=str(tmp_path / "other.pth"))
    with pytest.raises(CheckpointError, match="no weights match this model"):
        DetSolver(cfg).fit()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_before_the_first_batch_ends_at_once(tmp_path, digits, monkeypatch, number):
    class Ended(BaseException):
        pass

    def end(*_):
        raise Ended  # as the default handlers do, which end the process

    def create(cfg):
        os.kill(os.getpid(), number)
        pytest.fail("the set-up went on")

    monkeypatch.setattr(TrainingRun, "create", create)
    before = signal.signal(number, end)
    try:
        with pytest.raises(Ended):
            DetSolver(tiny_config(tmp_path / "out", digits)).fit()
    finally:
        signal.signal(number, before)
    assert list(tmp_path.rglob("*.pth")) == []


def test_early_stopping_by_patience(tmp_path, digits):
    cfg = tiny_config(tmp_path, digits, epoches=20, patience=2, optimizer={"lr": 1e-30})
    result = DetSolver(cfg).fit()
    assert result.stopped == "no better AP for 2 epochs"
    assert result.last_epoch == 2
    assert result.best_epoch == 0


@pytest.mark.parametrize(("freq", "expected"), [(0, []), (2, ["checkpoint0001"])])
def test_checkpoint_freq(tmp_path, digits, freq, expected):
    cfg = tiny_config(tmp_path, digits, epoches=3, checkpoint_freq=freq)
    result = DetSolver(cfg).fit()
    assert [n for n in result.checkpoints if n.startswith("checkpoint")] == expected


def test_empty_split_raises(tmp_path, digits):
    ann = json.loads((digits / "annotations" / "instances_val.json").read_text())
    empty = tmp_path / "instances_val.json"
    empty.write_text(json.dumps({**ann, "images": [], "annotations": []}))
    cfg = tiny_config(tmp_path, digits, val_dataloader={"dataset": {"ann_file": str(empty)}})
    with pytest.raises(DatasetError, match="instances_val.json: lists no images; a split needs"):
        DetSolver(cfg).fit()


@pytest.mark.parametrize("split", ["train", "val"])
def test_split_without_boxes_raises(tmp_path, digits, split):
    ann = json.loads((digits / "annotations" / f"instances_{split}.json").read_text())
    bare = tmp_path / "bare.json"
    bare.write_text(json.dumps({**ann, "annotations": []}))
    cfg = tiny_config(
        tmp_path, digits, **{f"{split}_dataloader": {"dataset": {"ann_file": str(bare)}}}
    )
    with pytest.raises(DatasetError, match=f"{split}: none of . images has a usable box; label"):
        DetSolver(cfg).fit()


def test_unreadable_images_are_skipped_and_named_once(tmp_path, digits):
    folder = tmp_path / "data"
    for split in ("train", "val"):
        (folder / split).mkdir(parents=True)
        for path in (digits / split).iterdir():
            (folder / split / path.name).write_bytes(path.read_bytes())
        (folder / split / "00002.jpg").write_bytes(b"\xff\xd8 cut off")
    (folder / "annotations").symlink_to(digits / "annotations")
    events = Recorder()
    result = DetSolver(tiny_config(tmp_path / "out", folder), events=events).fit()
    assert list(events.reports[0].skipped_images) == ["00002.jpg", "00002.jpg"]
    assert list(events.reports[1].skipped_images) == []
    assert result.best.num_images == 3  # without the unreadable one


def test_training_on_batches_without_boxes(tmp_path, digits):
    folder = tmp_path / "data"
    (folder / "annotations").mkdir(parents=True)
    for split in ("train", "val"):
        ann = json.loads((digits / "annotations" / f"instances_{split}.json").read_text())
        if split == "train":
            ann["annotations"] = [a for a in ann["annotations"] if a["image_id"] == 1]
        (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(ann))
        (folder / split).symlink_to(digits / split)
    cfg = tiny_config(tmp_path / "out", folder, train_dataloader={"total_batch_size": 1})
    events = Recorder()
    DetSolver(cfg, events=events).fit()
    assert [report.skipped_steps for report in events.reports] == [0, 0]
    assert all(0 < report.train_loss < 100 for report in events.reports)


@pytest.mark.parametrize("amp_dtype", ["bfloat16", "float16"])
def test_training_in_mixed_precision(tmp_path, digits, amp_dtype):
    cfg = tiny_config(tmp_path, digits, epoches=1, use_amp=True, amp_dtype=amp_dtype)
    events = Recorder()
    DetSolver(cfg, events=events).fit()
    assert events.plan.precision == amp_dtype
    assert 1 < events.reports[0].train_loss < 100


@pytest.mark.slow
def test_compiled_training_has_the_same_losses(tmp_path, digits, monkeypatch):
    """With real graphs and a backend that generates no kernels, which takes minutes."""
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    losses, keys = {}, {}
    for compiled in (False, True):
        folder = tmp_path / str(compiled)
        DetSolver(tiny_config(folder, digits, epoches=1, compile=compiled)).fit()
        assert bool(graphs) == compiled
        events = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        losses[compiled] = [event["loss"] for event in events if event["event"] == "step"]
        keys[compiled] = list(load_checkpoint(folder / "last.pth")["model"])
    assert losses[True] == pytest.approx(losses[False], rel=1e-4)
    assert keys[True] == keys[False]


def test_multi_scale_training_changes_the_batch_size_in_pixels(tmp_path, digits):
    sizes = []
    cfg = tiny_config(
        tmp_path,
        digits,
        epoches=2,
        train_dataloader={"collate_fn": {"scales": [64, 96, 128], "stop_epoch": 1}},
    )
    model = cfg.model
    model.register_forward_hook(
        lambda module, args, out: (
            sizes.append(tuple(args[0].shape[-2:])) if module.training else None
        )
    )
    DetSolver(cfg).fit()
    assert set(sizes[:3]) <= {(32, 64), (64, 96), (96, 128)}
    assert set(sizes[3:]) == {(64, 96)}


def test_weights_are_loaded_before_the_wrapper_and_the_ema(trained, tmp_path, digits, monkeypatch):
    """The EMA starts as a copy of the loaded weights."""
    order = []
    for name in ("load_pretrained", "_data_parallel"):
        original = getattr(network, name)
        monkeypatch.setattr(
            network,
            name,
            lambda *a, name=name, original=original: (order.append(name), original(*a))[1],
        )
    cfg = tiny_config(tmp_path, digits, tuning=str(trained[0] / "best.pth"))
    ema = type(cfg).ema

    class Watched:
        def __get__(self, instance, owner):
            order.append("ema")
            return ema.__get__(instance, owner)

    monkeypatch.setattr(type(cfg), "ema", Watched())
    TrainingRun.create(cfg)
    assert order[:3] == ["load_pretrained", "_data_parallel", "ema"]


def test_val_without_weights_raises(tmp_path, digits):
    with pytest.raises(CheckpointError, match="no weights to evaluate; set resume or tuning"):
        DetSolver(tiny_config(tmp_path, digits)).val()


def test_fewer_images_than_a_batch_and_accumulation_beyond_an_epoch(tmp_path, digits):
    events = Recorder()
    cfg = tiny_config(
        tmp_path,
        digits,
        epoches=1,
        grad_accum_steps=4,
        train_dataloader={"total_batch_size": 16},
    )
    DetSolver(cfg, events=events).fit()
    assert (events.plan.batch_size, events.plan.steps_per_epoch) == (6, 1)
    changes = list(events.plan.changes)
    assert "batch size: 16 -> 6, the number of training images" in changes
    assert "grad_accum_steps: 4 -> 1, the batches of an epoch" in changes
    written = yaml.safe_load((tmp_path / "model_config.yml").read_text())
    assert written["train_dataloader"]["total_batch_size"] == 6
    assert written["grad_accum_steps"] == 1


def test_images_that_leave_batch_norm_one_value_are_rejected(tmp_path, digits):
    for options in ({"train_dataloader": {"total_batch_size": 1}}, {"micro_batch_size": 1}):
        cfg = tiny_config(tmp_path, digits, eval_spatial_size=[32, 32], **WHOLE_BACKBONE, **options)
        with pytest.raises(ConfigError, match=r"batch of 1: images of 32x32 .* single value"):
            DetSolver(cfg).fit()


@pytest.mark.parametrize(
    ("options", "complete"),
    [
        ({}, True),
        ({"RTDETRTransformerv2": {"aux_loss": False}}, False),
        ({"RTDETRCriterionv2": {"losses": ["vfl"]}}, False),
        ({"RTDETRCriterionv2": {"losses": ["boxes"]}}, False),
    ],
)
def test_ranks_look_for_unused_parameters_only_where_losses_are_missing(
    tmp_path, digits, options, complete
):
    cfg = tiny_config(tmp_path, digits, **options)
    assert network._has_complete_loss(cfg) is complete
    run = TrainingRun.create(cfg)
    cfg.train_dataloader.set_epoch(0)
    images, targets = next(iter(cfg.train_dataloader))
    backward(run, StepBatch(images, targets, (64, 96), 0, 0, 0), group_size=1)
    unused = [n for n, p in cfg.model.named_parameters() if p.requires_grad and p.grad is None]
    assert (not unused) is complete
