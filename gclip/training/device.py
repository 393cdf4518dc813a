"""Where does a run compute, how exactly, and what is to be told about the machine?"""

from __future__ import annotations

import contextlib
import datetime
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from gclip.core.numbers import bounded
from gclip.errors import UsageError, choose
from gclip.training import stepping
from gclip.version import __version__

MOST_THREADS = 1024
"""More than this many threads end a process, or the machine."""
DEVICES = ("auto", "cpu", "cuda", "mps")


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """The device to compute on; ``auto`` takes a GPU where there is one.

    Raises:
        UsageError: an unknown device, or one that this machine does not have.
    """
    name = str(device)
    kind, _, index = name.partition(":")
    choose(kind, DEVICES, "device")
    present = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        return torch.device(next(each for each in ("cuda", "mps", "cpu") if present[each]))
    usable = ", ".join(each for each in DEVICES if present.get(each, True))
    if not present.get(kind, False):
        raise UsageError(f"device {name!r} is not there on this machine (choices here: {usable})")
    if index and not (index.isdigit() and int(index) < _count(kind)):
        raise UsageError(
            f"device {name!r} is not there on this machine: it has {_count(kind)} of {kind}"
        )
    return torch.device(name)


def _count(kind: str) -> int:
    return torch.cuda.device_count() if kind == "cuda" else 1


def memory_format(device: torch.device, precision: str) -> torch.memory_format:
    """The layout in which images and filters are computed with.

    On a CPU ``channels_last`` is the faster at every batch size (LeNet on one thread, a step:
    1.6 against 1.9 ms at batch 4, 5.6 against 6.9 at 32, 18.4 against 20.7 at 128), and so it is
    for the half-precision units of a GPU. Elsewhere images are laid out as torch does by default.
    """
    last = device.type == "cpu" or (device.type == "cuda" and precision == "bf16")
    return torch.channels_last if last else torch.contiguous_format


def lay_out(model: nn.Module, layout: torch.memory_format) -> nn.Module:
    """`model` with its filters in `layout`, which torch knows for those of images alone."""
    if any(parameter.ndim == 5 for parameter in model.parameters()):
        return model
    return cast(nn.Module, cast(Any, model).to(memory_format=layout))


@contextlib.contextmanager
def reproducible(device: torch.device, threads: int | None) -> Iterator[int]:
    """Pin what the last bits of a result depend on; yields the number of threads.

    On a CPU that is the number of threads (one, unless told otherwise), on a GPU the choice of
    algorithms; and everywhere that numbers are float32, whatever torch's default dtype is. Global
    random states are the caller's again afterwards, and so are all settings.
    """
    before, dtype = torch.get_num_threads(), torch.get_default_dtype()
    wanted = threads if threads is not None else (1 if device.type == "cpu" else before)
    bounded("threads", wanted, MOST_THREADS)
    cudnn = torch.backends.cudnn
    flags = (cudnn.deterministic, cudnn.benchmark)
    devices = [torch.cuda.current_device()] if device.type == "cuda" else []
    try:
        torch.set_num_threads(wanted)
        torch.set_default_dtype(torch.float32)
        cudnn.deterministic, cudnn.benchmark = True, False
        with torch.random.fork_rng(devices=devices):
            yield wanted
    finally:
        cudnn.deterministic, cudnn.benchmark = flags
        torch.set_default_dtype(dtype)
        torch.set_num_threads(before)


def environment(device: torch.device, threads: int) -> dict[str, Any]:
    """What a reader of a result may want to know about the machine that made it."""
    return {
        "gclip": __version__,
        "stepping": stepping.VERSION,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": device_name(device),
        "cores": os.cpu_count(),
        "threads": threads,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def device_name(device: torch.device) -> str:
    """What computes there, as its maker calls it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "mps":
        return "mps"
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine() or "cpu"
