"""A batch in an anonymous file in memory, which a worker sends to the main process.

The file holds a line of JSON, then the images, then one table for each value of the targets. A
single file descriptor per batch is sent, however many images and boxes the batch has. The memory is
not part of /dev/shm, and writing fails with an OSError where memory is exhausted.
"""

import json
import mmap
import os
from typing import cast

import numpy as np
import torch
from torch import Tensor

from ...structures import Target
from .collate import Batch

_ALIGNMENT = 64  # bytes, of every array in the file


def pack(batch: Batch) -> int:
    """Write a batch.

    Returns:
        A file descriptor, which belongs to the caller.

    Raises:
        OSError: if memory or file descriptors are exhausted.
    """
    images, targets = batch
    columns: dict[str, list[Tensor]] = {}
    for target in targets:
        for name, value in cast(dict[str, Tensor], target).items():
            columns.setdefault(name, []).append(value)
    # [values, B] int64: how many rows of each table belong to each image
    rows = torch.tensor([[len(v) for v in column] for column in columns.values()])
    tensors = [images.contiguous(), rows, *(torch.cat(column) for column in columns.values())]
    arrays = [tensor.numpy() for tensor in tensors]
    header = json.dumps([list(columns), [(array.dtype.str, array.shape) for array in arrays]])
    fd = os.memfd_create("batch")
    try:
        with os.fdopen(fd, "wb", closefd=False) as file:
            file.write(f"{header}\n".encode())
            for array in arrays:
                file.seek(_aligned(file.tell()))
                file.write(array.data)
            file.truncate()  # to the current position, also after an empty array
    except BaseException:
        os.close(fd)
        raise
    return fd


def unpack(fd: int) -> Batch:
    """Map a batch into memory and close the file descriptor; targets are views of the tables.

    Raises:
        OSError: if memory or file descriptors are exhausted.
    """
    try:
        memory = mmap.mmap(fd, 0)
    finally:
        os.close(fd)
    names, layout = json.loads(memory.readline())
    place, tensors = memory.tell(), []
    for dtype, shape in layout:
        array: np.ndarray = np.ndarray(shape, dtype, buffer=memory, offset=_aligned(place))
        tensors.append(torch.from_numpy(array))
        place = _aligned(place) + array.nbytes
    images, rows, *tables = tensors
    columns = [table.split(counts) for table, counts in zip(tables, rows.tolist(), strict=True)]
    targets = [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]
    return images, cast(list[Target], targets)


def _aligned(place: int) -> int:
    return -(-place // _ALIGNMENT) * _ALIGNMENT
