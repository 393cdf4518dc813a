"""Can a run that is sealed be what it says? Seals prove that nothing has changed since, not that it
was ever right: another program, or a hand, may have made it.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

MOST_BYTES = 2**30
"""What the arrays of a run may take, unpacked: some 40 million steps."""
_MOST_ARRAYS = 1000
_STATUSES = ("finished", "diverged", "pruned", "failed")


class Implausible(Exception):
    """A run says what cannot be; the message names it."""


def check_run(key: str, config: Any, result: Any, environment: Any, archive: bytes) -> None:
    """Check what a run's files say.

    Args:
        key: of the run.
        config, result, environment: what the JSON files hold.
        archive: the arrays' file.

    Raises:
        Implausible: naming what cannot be.
    """
    for name, value in (("config", config), ("result", result), ("environment", environment)):
        if not isinstance(value, dict):
            raise Implausible(f"its {name} is no table")
    if _key(config) != key:
        raise Implausible("its config is that of another run")
    if result.get("status") not in _STATUSES:
        raise Implausible(f"its status is {str(result.get('status'))[:20]!r}")
    _check_scores(result)
    _check_archive(archive)


def _key(config: Mapping[str, Any]) -> str:
    try:
        text = json.dumps(config, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except ValueError:
        return ""
    return hashlib.sha256(text.encode()).hexdigest()


def _check_scores(result: Mapping[str, Any]) -> None:
    for name, kind in (("curve", list), ("clipping", dict), ("scores", dict), ("metric", dict)):
        if not isinstance(result.get(name) or kind(), kind):
            raise Implausible(f"its {name} is no {'list' if kind is list else 'table'}")
    for name, low, high in (
        ("accuracy", 0.0, 1.0), ("chance", 0.0, 1.0), ("seconds", 0.0, math.inf),
        ("loss", -math.inf, math.inf), ("train_loss", -math.inf, math.inf),
    ):  # fmt: skip
        value = _number(name, result.get(name))
        if not math.isnan(value) and not low <= value <= high:
            raise Implausible(f"its {name} is {value:g}")
    for point in result.get("curve") or ():
        if not isinstance(point, dict):
            raise Implausible("its curve has a point that is no table")


def _number(name: str, value: Any) -> float:
    """A number, which JSON may spell "nan" or "inf"; nothing is NaN."""
    try:
        return math.nan if value is None else float(value)
    except (TypeError, ValueError, OverflowError):
        raise Implausible(f"its {name} is no number") from None


def _check_archive(archive: bytes) -> None:
    """The arrays are what their heads say, and no more than a run can have."""
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as packed:
            members = packed.infolist()
            size = sum(member.file_size for member in members)
            if size > MOST_BYTES or len(members) > _MOST_ARRAYS:
                raise Implausible(f"its arrays would unpack to {size / 2**20:,.0f} MiB")
            for member in members:
                with packed.open(member) as file:
                    _check_head(member.filename, file, member.file_size)
    except Implausible:
        raise
    except Exception as error:  # whatever NumPy and zipfile make of foreign bytes
        raise Implausible(f"its arrays cannot be read ({type(error).__name__})") from None


def _check_head(name: str, file: Any, size: int) -> None:
    version = np.lib.format.read_magic(file)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0,
    }[version]  # fmt: skip
    shape, _, dtype = read(file)
    if dtype.hasobject:
        raise Implausible(f"its array {name} holds Python objects")
    if math.prod(shape) * dtype.itemsize + file.tell() != size:
        raise Implausible(f"its array {name} is not as long as it says")
