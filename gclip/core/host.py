"""Where a tensor's values are, and whether looking at them makes anybody wait."""

from __future__ import annotations

import torch
from torch import Tensor


def on_host(tensor: Tensor) -> bool:
    """Whether a look at the tensor's values is free: on a CPU, and not while tracing a graph."""
    return type(tensor) is Tensor and tensor.is_cpu and not torch.compiler.is_compiling()
