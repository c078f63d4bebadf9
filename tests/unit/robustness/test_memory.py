"""Recovery from out-of-memory errors."""

import pytest
import torch

from rtdetrv2_pytorch.src.misc.errors import OutOfMemory
from rtdetrv2_pytorch.src.robustness.memory import MicroBatches, is_out_of_memory


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("shape mismatch"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_is_out_of_memory(error, expected):
    assert is_out_of_memory(error) is expected


@pytest.mark.parametrize(
    ("num_images", "size", "expected"),
    [
        (4, None, [(0, 4)]),
        (4, 9, [(0, 4)]),
        (4, 2, [(0, 2), (2, 4)]),
        (8, 3, [(0, 2), (2, 5), (5, 8)]),  # three parts of 2.67, none above 3
        (3, 1, [(0, 1), (1, 2), (2, 3)]),
    ],
)
def test_parts_cover_the_batch_and_have_about_equal_size(num_images, size, expected):
    parts = MicroBatches(size).parts(num_images)
    assert [(p.start, p.stop) for p in parts] == expected


def test_retry_halves_the_micro_batch_until_it_fits(caplog):
    micro_batches, attempts, undone = MicroBatches(), [], []

    def compute():
        parts = micro_batches.parts(8)
        attempts.append(len(parts))
        if len(parts) < 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried\nto allocate")
        return "done"

    result = micro_batches.retry(compute, 8, undo=lambda: undone.append(True))
    assert result == "done"
    assert (attempts, len(undone), micro_batches.size) == ([1, 2, 4], 2, 2)
    assert (
        "a micro-batch of 8 images does not fit in memory (CUDA out of memory. Tried); using micro"
        in (caplog.text)
    )


def test_single_image_out_of_memory_names_remedies():
    def compute():
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(OutOfMemory, match=r"a single image .*smaller eval_spatial_size.*use_amp"):
        MicroBatches().retry(compute, 3)


def test_fixed_micro_batch_names_the_setting():
    with pytest.raises(OutOfMemory, match=r"resume last.pth with micro_batch_size = 4, which"):
        MicroBatches(is_fixed=True).shrink(8, "CUDA out of memory")


def test_other_errors_are_not_retried():
    def compute():
        raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape"):
        MicroBatches().retry(compute, 8)
