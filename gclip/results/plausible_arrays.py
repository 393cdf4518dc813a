"""Can the arrays of a run be read, and are they what a run has? Told from their heads."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from gclip.clipping.layer_record import PREFIX, LayerRecord
from gclip.results.implausible import Implausible
from gclip.results.packed_arrays import LONGEST_HEAD, head_of, unpacked

MOST_BYTES = 2**30
"""What the arrays of a run may take, unpacked: some 40 million steps."""
_MOST_ARRAYS = 1000
_CHUNK = 2**20
_NUMBERS = "biuf"
_BY_STEP = ("norm", "clipped_norm", "limit", "clipped", "finite", "loss", "lr")
"""Arrays that tables and figures put side by side."""


def check_archive(archive: bytes, result: Mapping[str, Any]) -> None:
    """The arrays are what their heads say, and no more than a run can have.

    Args:
        archive: the arrays' file.
        result: names the layers that were recorded.

    Raises:
        Implausible: naming what cannot be.
    """
    try:
        shapes = _shapes(archive)
    except Implausible:
        raise
    except Exception as error:  # whatever NumPy and zipfile make of foreign bytes
        raise Implausible(f"its arrays cannot be read ({type(error).__name__})") from None
    steps = {name: shape for name, shape in shapes.items() if not name.startswith(PREFIX)}
    _check_steps(steps)
    if result.get("layers"):
        _check_layers(result, {name: shapes[name] for name in shapes.keys() - steps.keys()})


def _shapes(archive: bytes) -> dict[str, tuple[int, ...]]:
    """The shape of each array, by name; all of them were unpacked once."""
    shapes: dict[str, tuple[int, ...]] = {}
    with zipfile.ZipFile(io.BytesIO(archive)) as packed:
        members = packed.infolist()
        size = sum(member.file_size for member in members)
        if size > MOST_BYTES or len(members) > _MOST_ARRAYS:
            raise Implausible(f"its {len(members)} arrays would unpack to {size / 2**20:,.0f} MiB")
        for member in members:
            name = member.filename.removesuffix(".npy")
            if name in shapes:
                raise Implausible(f"its array {name[:40]} is there twice")
            content = unpacked(archive, member)
            if content is None:
                with packed.open(member) as file:
                    shapes[name] = _shape(name[:40], file.read(LONGEST_HEAD), member.file_size)
                    while file.read(_CHUNK):  # compares its checksum with what is unpacked
                        pass
            else:
                shapes[name] = _shape(name[:40], content, member.file_size)
    return shapes


def _shape(name: str, start: bytes, size: int) -> tuple[int, ...]:
    shape, dtype, length = head_of(start)
    if dtype.hasobject:
        raise Implausible(f"its array {name} holds Python objects")
    if dtype.kind not in _NUMBERS:
        raise Implausible(f"its array {name} holds no numbers but {dtype}")
    if math.prod(shape) * dtype.itemsize + length != size:
        raise Implausible(f"its array {name} is not as long as it says")
    return shape


def _check_steps(shapes: Mapping[str, tuple[int, ...]]) -> None:
    for name, shape in shapes.items():
        if len(shape) != 1:
            raise Implausible(f"its array {name[:40]} has {len(shape)} dimensions, not one")
    longest = max((shape[0] for shape in shapes.values()), default=0)
    for name in _BY_STEP:
        if name in shapes and shapes[name][0] != longest:
            raise Implausible(f"its array {name} has {shapes[name][0]} of {longest} steps")


def _check_layers(result: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> None:
    # One zero that pretends to be the whole array: a record looks at names and shapes alone.
    arrays = {name: np.broadcast_to(np.zeros(()), shape) for name, shape in shapes.items()}
    try:
        LayerRecord.from_arrays(result["layers"], result.get("layer_players") or (), arrays)
    except (ValueError, TypeError, IndexError) as error:
        raise Implausible(f"its layers do not fit: {error}") from None
