"""The bits of anything nested, leaf by leaf, so that what differs can be named."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gclip.training.result import RunResult

Bits = Mapping[str, str]
"""A digest of each leaf, by its path: ``keep['seen']``."""


def bits(value: Any, path: str = "") -> dict[str, str]:
    """The leaves of nested mappings, sequences, data classes and objects."""
    return {where: hashlib.sha256(data).hexdigest() for where, data in _leaves(value, path)}


def bits_of_run(result: RunResult) -> dict[str, str]:
    """All that came of a run but its seconds."""
    curve = [{k: v for k, v in point.items() if k != "seconds"} for point in result.curve]
    return bits(
        {
            "status": result.status,
            "steps": dict(result.steps),
            "curve": curve,
            "scores": dict(result.scores),
            "clipping": result.clipping,
        }
    )


def changed(before: Bits, after: Bits) -> list[str]:
    """The paths of the leaves that differ."""
    paths = list(dict.fromkeys((*before, *after)))
    return [path for path in paths if before.get(path) != after.get(path)]


def difference(actual: RunResult, expected: RunResult, than: str) -> str | None:
    """In a sentence, where a run is not another one; None where all bits are the same.

    Args:
        than: what the other one is, in words.
    """
    if actual.status != expected.status:
        return f"it {actual.status}, but {expected.status} {than}"
    for name in ("loss", "norm"):
        a, b = actual.steps[name], expected.steps[name]
        if len(a) != len(b):
            return f"it makes {len(a)} steps, but {len(b)} {than}"
        unequal = np.flatnonzero((a != b) & ~(np.isnan(a) & np.isnan(b)))
        if len(unequal):
            step = int(unequal[0])
            return f"step {step}: the {name} is {a[step]:.9g}, but {b[step]:.9g} {than}"
    paths = changed(bits_of_run(expected), bits_of_run(actual))
    return f"{paths[0]} is another than {than}" if paths else None


def _leaves(value: Any, path: str) -> Iterator[tuple[str, bytes]]:
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from _leaves(each, f"{path}[{key!r}]" if path else str(key))
    elif isinstance(value, list | tuple):
        for index, each in enumerate(value):
            yield from _leaves(each, f"{path}[{index}]")
    elif isinstance(value, Tensor):
        yield path, _tensor(value)
    elif isinstance(value, np.ndarray):
        yield path, f"{value.dtype} {value.shape}".encode() + value.tobytes()
    elif isinstance(value, torch.Generator):
        yield path, _tensor(value.get_state())
    elif value is None or isinstance(value, bool | int | float | complex | str | bytes):
        yield path, repr(value).encode()
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from _leaves(getattr(value, field.name), _member(path, field.name))
    elif callable(getattr(value, "state_dict", None)):
        yield from _leaves(value.state_dict(), path)
    elif hasattr(value, "__dict__") and not callable(value):
        for name, each in vars(value).items():
            yield from _leaves(each, _member(path, name))
    else:
        yield path, type(value).__qualname__.encode()


def _member(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _tensor(value: Tensor) -> bytes:
    plain = value.detach().to_dense().cpu().contiguous()
    data = plain.flatten().view(torch.uint8).numpy().tobytes() if plain.numel() else b""
    return f"{plain.dtype} {tuple(plain.shape)}".encode() + data
