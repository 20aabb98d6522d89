"""The tensors of safetensors files, put into a module of the same names and shapes.

Names and shapes are compared by the files' headers (checkpoint_files.py) before any tensor is read.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from og2.errors import CheckpointError
from og2.model.checkpoint_files import check_tensors, read_header


def load_tensors(
    module: nn.Module,
    files: list[Path],
    dtype: torch.dtype | None = None,
    rename: Callable[[str], str] | None = None,
) -> None:
    """Replace every tensor of the module (which may be on the meta device) by the one in the files.

    `dtype` is what floating tensors become; None keeps them as stored. `rename` maps a stored name to the
    module's.
    Raises: CheckpointError for missing, unexpected or wrongly shaped tensors, naming them.
    """
    rename = rename or str
    headers = {path: read_header(path) for path in files}
    stored = {rename(name): t.shape for header in headers.values() for name, t in header.items()}
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    check_tensors(expected, stored, files[0].parent)
    for path in files:
        try:
            with safe_open(path, framework="pt") as file:
                tensors = {rename(name): _cast(file.get_tensor(name), dtype) for name in headers[path]}
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path} cannot be read: {error}; fetch the file again") from error
        module.load_state_dict(tensors, strict=False, assign=True)
    left = [name for name, t in chain(module.named_parameters(), module.named_buffers()) if t.is_meta]
    assert not left, f"never given a value: {left}"


def _cast(tensor: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
    return tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor
