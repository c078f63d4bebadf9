"""Memory that does not suffice."""

import pytest
import torch

from rtdetrv2_pytorch.src.misc.errors import OutOfMemory
from rtdetrv2_pytorch.src.robustness.memory import MicroBatches, is_out_of_memory, run_in_parts


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
def test_which_errors_mean_memory(error, expected):
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
def test_parts_cover_the_batch_and_are_about_equal(num_images, size, expected):
    parts = MicroBatches(size).parts(num_images)
    assert [(p.start, p.stop) for p in parts] == expected


def test_a_computation_is_repeated_in_halves_until_it_fits(caplog):
    micro_batches, attempts, undone = MicroBatches(), [], []

    def compute():
        parts = micro_batches.parts(8)
        attempts.append(len(parts))
        if len(parts) < 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried\nto allocate")
        return "done"

    result = run_in_parts(compute, micro_batches, 8, undo=lambda: undone.append(True))
    assert result == "done"
    assert (attempts, len(undone), micro_batches.size) == ([1, 2, 4], 2, 2)
    assert (
        "8 images at once do not fit into memory (CUDA out of memory. Tried); computing 4 at"
        in (caplog.text)
    )


def test_one_image_that_does_not_fit_names_the_remedies():
    def compute():
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(OutOfMemory, match=r"a single image .*smaller eval_spatial_size.*use_amp"):
        run_in_parts(compute, MicroBatches(), 3)


def test_with_other_ranks_waiting_the_remedy_is_a_setting():
    with pytest.raises(OutOfMemory, match=r"go on from last.pth with micro_batch_size = 4, which"):
        MicroBatches(is_fixed=True).shrink(8, "CUDA out of memory")


def test_other_errors_are_not_repeated():
    def compute():
        raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape"):
        run_in_parts(compute, MicroBatches(), 8)
