"""Train RT-DETRv2 of `transformers` as its object detection script does, from random weights.

Settings and augmentation are those of examples/pytorch/object-detection of transformers; the image
size, the time and the number of evaluations are those of the benchmark.
"""

import copy
import time
from collections.abc import Iterator
from typing import Any

import albumentations as A  # noqa: N812 (as in the documentation of the package)
import numpy as np
import torch
from common import CocoSplit, Recorder, Request, read_request, row
from PIL import Image
from torch.utils.data import Dataset
from transformers import (
    RTDetrImageProcessor,
    RTDetrResNetConfig,
    RTDetrV2Config,
    RTDetrV2ForObjectDetection,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

_PROBE_STEPS = 4
_PROBE_IMAGES = 16
_VAL_BATCH = 8


def build_model(split: CocoSplit) -> RTDetrV2ForObjectDetection:
    """Return RT-DETRv2-S with random weights."""
    backbone = RTDetrResNetConfig(
        embedding_size=64,
        hidden_sizes=[64, 128, 256, 512],
        depths=[2, 2, 2, 2],
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )
    config = RTDetrV2Config(
        backbone_config=backbone,
        freeze_backbone_batch_norms=False,
        encoder_in_channels=[128, 256, 512],
        hidden_expansion=0.5,
        decoder_layers=3,
        id2label=dict(enumerate(split.names)),
        label2id={name: i for i, name in enumerate(split.names)},
    )
    return RTDetrV2ForObjectDetection(config)


def augmentation(size: int) -> A.Compose:
    """Return the augmentation of the script."""
    crop = [
        A.SmallestMaxSize(max_size=size, p=1.0),
        A.RandomSizedBBoxSafeCrop(height=size, width=size, p=1.0),
    ]
    blur = [
        A.Blur(blur_limit=7, p=0.5),
        A.MotionBlur(blur_limit=7, p=0.5),
        A.Defocus(radius=(1, 5), alias_blur=(0.1, 0.25), p=0.1),
    ]
    return A.Compose(
        [
            A.Compose(crop, p=0.2),
            A.OneOf(blur, p=0.1),
            A.Perspective(p=0.1),
            A.HorizontalFlip(p=0.5),
            A.RandomBrightnessContrast(p=0.5),
            A.HueSaturationValue(p=0.1),
        ],
        bbox_params=A.BboxParams(format="coco", label_fields=["category"], clip=True, min_area=25),
    )


class TrainingImages(Dataset):  # type: ignore[type-arg]
    """Augmented images as the processor returns them."""

    def __init__(self, split: CocoSplit, processor: RTDetrImageProcessor, size: int) -> None:
        self._split, self._processor = split, processor
        self._augment = augmentation(size)

    def __len__(self) -> int:
        return len(self._split.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image = self._split.images[index]
        boxes = self._split.boxes(image)
        output = self._augment(
            image=np.array(Image.open(self._split.path(image)).convert("RGB")),
            bboxes=[each["bbox"] for each in boxes],
            category=[self._split.category_ids.index(each["category_id"]) for each in boxes],
        )
        annotations = [
            {
                "image_id": image["id"],
                "category_id": int(category),
                "iscrowd": 0,
                "area": box[2] * box[3],
                "bbox": list(box),
            }
            for box, category in zip(output["bboxes"], output["category"], strict=True)
        ]
        result = self._processor(
            images=output["image"],
            annotations={"image_id": image["id"], "annotations": annotations},
            return_tensors="pt",
        )
        return {"pixel_values": result["pixel_values"][0], "labels": result["labels"][0]}


def collate(batch: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a batch."""
    return {
        "pixel_values": torch.stack([each["pixel_values"] for each in batch]),
        "labels": [each["labels"] for each in batch],
    }


@torch.no_grad()
def predict(
    model: RTDetrV2ForObjectDetection,
    processor: RTDetrImageProcessor,
    request: Request,
    images: list[dict[str, Any]],
) -> Iterator[dict[str, Any]]:
    """Yield the detections on validation images."""
    model.eval()
    for begin in range(0, len(images), _VAL_BATCH):
        part = images[begin : begin + _VAL_BATCH]
        pictures = [Image.open(request.val.path(image)).convert("RGB") for image in part]
        inputs = processor(images=pictures, return_tensors="pt").to(model.device)
        found = processor.post_process_object_detection(
            model(**inputs),
            threshold=0.0,
            target_sizes=[(picture.height, picture.width) for picture in pictures],
        )
        for image, result in zip(part, found, strict=True):
            detections = (result[key].tolist() for key in ("boxes", "labels", "scores"))
            for box, label, score in zip(*detections, strict=True):
                yield row(image["id"], request.train.category_ids[label], box, score)
    model.train()


class Evaluations(TrainerCallback):
    """Predicts in regular intervals, and ends the training when the time is over."""

    def __init__(self, request: Request, processor: RTDetrImageProcessor, every: int) -> None:
        self._request, self._processor, self._every = request, processor, every
        self._recorder: Recorder | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the clock."""
        run = {"max_steps": args.max_steps, **self._request.settings}
        self._recorder = Recorder(self._request, run)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Predict on all validation images."""
        assert self._recorder is not None
        is_over = self._recorder.seconds > self._request.seconds
        is_last = is_over or state.global_step >= args.max_steps
        if is_last or state.global_step % self._every == 0:
            images = self._request.val.images
            rows = list(predict(kwargs["model"], self._processor, self._request, images))
            epoch, steps = int(state.epoch or 0), state.global_step
            self._recorder.write(rows, epoch=epoch, steps=steps)
        control.should_training_stop = is_last


def arguments(request: Request, max_steps: int) -> TrainingArguments:
    """Return the settings of the script, without saving and uploading."""
    settings = request.settings
    return TrainingArguments(
        output_dir=str(request.output / "trainer"),
        max_steps=max_steps,
        learning_rate=settings["learning_rate"],
        weight_decay=settings["weight_decay"],
        max_grad_norm=settings["max_grad_norm"],
        per_device_train_batch_size=settings["batch"],
        lr_scheduler_type="linear",
        fp16=request.device != "cpu",
        use_cpu=request.device == "cpu",
        dataloader_num_workers=1,
        remove_unused_columns=False,
        save_strategy="no",
        logging_steps=20,
        report_to=[],
        disable_tqdm=True,
        seed=request.seed,
    )


def measured(request: Request, model: Any, processor: Any, data: Any) -> tuple[float, float]:
    """Return the seconds of a training step and of an evaluation."""
    probe = copy.deepcopy(model)
    laps: list[float] = []

    class Laps(TrainerCallback):
        def on_step_end(self, *positional: Any, **kwargs: Any) -> None:
            laps.append(time.perf_counter())

    Trainer(
        model=probe,
        args=arguments(request, _PROBE_STEPS),
        train_dataset=data,
        data_collator=collate,
        callbacks=[Laps()],
    ).train()
    images = request.val.images[:_PROBE_IMAGES]
    begin = time.perf_counter()
    list(predict(probe, processor, request, images))
    predict_s = (time.perf_counter() - begin) / len(images) * len(request.val.images)
    return (laps[-1] - laps[0]) / (len(laps) - 1), predict_s


def main() -> None:
    """Choose the number of steps for the time, and train."""
    request = read_request()
    set_seed(request.seed)
    side = {"height": request.size, "width": request.size}
    processor = RTDetrImageProcessor(size=side)
    model = build_model(request.train)
    data = TrainingImages(request.train, processor, request.size)
    step_s, predict_s = measured(request, model, processor, data)
    seconds = request.seconds - request.evaluations * predict_s
    max_steps = max(request.evaluations, int(seconds / step_s))
    set_seed(request.seed)
    Trainer(
        model=model,
        args=arguments(request, max_steps),
        train_dataset=data,
        data_collator=collate,
        callbacks=[Evaluations(request, processor, max(1, max_steps // request.evaluations))],
    ).train()


if __name__ == "__main__":
    main()
