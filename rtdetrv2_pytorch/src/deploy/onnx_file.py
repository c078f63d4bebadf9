"""Names and model card of an exported ONNX file."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..misc.errors import ExportError, extra
from .model_card import ModelCard

INPUTS, OUTPUTS = ("images", "orig_target_sizes"), ("labels", "boxes", "scores")


def read_card(path: Path) -> ModelCard:
    """Read the model card of an ONNX file.

    Files with external data are rejected, because a runtime would read any path they name.

    Raises:
        CheckpointError: if the file has no model card.
        ExportError: if the file is not an ONNX model or has external data.
    """
    with extra("onnx"):
        import onnx

    try:
        model = onnx.load(path, load_external_data=False)
        external = next(_external_tensors(model), None)
    except Exception as error:  # noqa: BLE001 (protobuf has its own errors)
        raise ExportError(
            f"{path}: not an ONNX model, or damaged; export the checkpoint again"
        ) from error
    if external is not None:
        raise ExportError(
            f"{path}: the weights {external[:80]!r} are external data; use a file that contains "
            "all weights"
        )
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    return ModelCard.from_metadata(metadata, source=str(path))


def _external_tensors(message: Any) -> Iterator[str]:
    """Yield names of tensors with external data, anywhere in the model."""
    if message.DESCRIPTOR.full_name == "onnx.TensorProto":
        if message.data_location == message.EXTERNAL or message.external_data:
            yield message.name
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in value if field.is_repeated else (value,):
                yield from _external_tensors(part)
