"""Is a stored run exactly what was written?

A run is four files. ``result.json`` carries the SHA-256 of the other three and of itself (its own
digest is taken with zeros in its place), so one flipped bit in any of them is found on reading:
neither NumPy's archives nor JSON would notice by themselves.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gclip.clipping.layer_record import PREFIX, LayerRecord
from gclip.core.files import read_file
from gclip.results.implausible import Implausible
from gclip.results.packed_arrays import arrays_in
from gclip.results.plausible import check_run

CONFIG, RESULT, STEPS, ENVIRONMENT = "config.json", "result.json", "steps.npz", "environment.json"
FILES = (CONFIG, RESULT, STEPS, ENVIRONMENT)
_BLANK = "0" * 64


class Damaged(Exception):
    """The bytes of a stored run are not the bytes that were written."""


@dataclass(frozen=True)
class StoredRun:
    """One run as it was read and verified: plain dictionaries, whatever gclip wrote them.

    ``result`` has the status, scores, curve and clipping summary; ``steps`` one array a quantity,
    ``layers`` those of a run whose layers were watched.
    """

    key: str
    config: dict[str, Any]
    result: dict[str, Any]
    environment: dict[str, Any]
    archive: bytes

    @property
    def status(self) -> str:
        """How the run ended: finished, diverged, pruned or failed."""
        return str(self.result["status"])

    def steps(self) -> dict[str, NDArray[Any]]:
        """One array for each recorded quantity, with one entry a step (unpacked at every call)."""
        return arrays_in(self.archive, lambda name: not name.startswith(PREFIX))

    def layers(self) -> LayerRecord | None:
        """The norms of the run's layers over time, where they were recorded (unpacked again)."""
        names = self.result.get("layers")
        if not names:
            return None
        found = arrays_in(self.archive, lambda name: name.startswith(PREFIX))
        return LayerRecord.from_arrays(names, self.result.get("layer_players") or (), found)

    def length(self) -> int:
        """How many steps were recorded."""
        with np.load(io.BytesIO(self.archive), allow_pickle=False) as arrays:
            own = [name for name in arrays.files if not name.startswith(PREFIX)]
            return max((len(arrays[name]) for name in own[:1]), default=0)


def pack(
    key: str,
    config: Mapping[str, Any],
    result: Mapping[str, Any],
    environment: Mapping[str, Any],
    steps: Mapping[str, NDArray[Any]],
) -> dict[str, bytes]:
    """The four files of a run, by name. The same arguments give the same bytes.

    Args:
        key: of the run.
        config, result, environment: what the JSON files hold.
        steps: the arrays of the archive, one a recorded quantity.
    """
    return seal(key, config, result, environment, packed(steps))


def packed(steps: Mapping[str, NDArray[Any]]) -> bytes:
    """The archive of a run's arrays."""
    archive = io.BytesIO()
    arrays: dict[str, Any] = {name: np.asarray(values) for name, values in steps.items()}
    np.savez_compressed(archive, **arrays)
    return archive.getvalue()


def seal(
    key: str,
    config: Mapping[str, Any],
    result: Mapping[str, Any],
    environment: Mapping[str, Any],
    archive: bytes,
) -> dict[str, bytes]:
    """As `pack`, of arrays that are packed already."""
    files = {
        CONFIG: _json(config),
        STEPS: archive,
        ENVIRONMENT: _json(environment),
    }
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    # "sha256" stands first, so the first 64 zeros in the text are the blank for our own.
    sealed = {"sha256": {RESULT: _BLANK, **digests}, "key": key, **result}
    text = _json(sealed)
    own = hashlib.sha256(text).hexdigest().encode()
    files[RESULT] = text.replace(_BLANK.encode(), own, 1)
    return files


def unpack(key: str, folder: Path) -> StoredRun:
    """Read and verify the run in ``folder``.

    Raises:
        Damaged: a file is missing or altered, or the run belongs to another key.
        FileNotFoundError: there is no such folder.
        OSError: it cannot be read.
    """
    files: dict[str, bytes] = {}
    place = os.fspath(folder)
    for name in FILES:
        try:
            files[name] = read_file(os.path.join(place, name))
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            if not folder.is_dir():
                raise FileNotFoundError(folder) from None
            raise Damaged(f"{name} is missing") from None
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            raise Damaged(f"{name}: {error.strerror}") from None
    try:
        result = json.loads(files[RESULT])
        digests = result.pop("sha256")
        own = digests.pop(RESULT)
        blank = files[RESULT].replace(own.encode(), _BLANK.encode(), 1)
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        raise Damaged(f"{RESULT} cannot be read") from None
    if hashlib.sha256(blank).hexdigest() != own:
        raise Damaged(f"{RESULT} does not match its SHA-256")
    for name in FILES:
        if name != RESULT and hashlib.sha256(files[name]).hexdigest() != digests.get(name):
            raise Damaged(f"{name} does not match its SHA-256")
    if result.pop("key", None) != key:
        raise Damaged("it is the run of another key")
    try:
        config, environment = json.loads(files[CONFIG]), json.loads(files[ENVIRONMENT])
    except (ValueError, RecursionError):
        raise Damaged(f"{CONFIG} or {ENVIRONMENT} cannot be read") from None
    try:
        check_run(key, config, result, environment, files[STEPS])
    except (Implausible, RecursionError) as error:
        raise Damaged(str(error)) from None
    return StoredRun(
        key=key, config=config, result=result, environment=environment, archive=files[STEPS]
    )


def _json(value: Mapping[str, Any]) -> bytes:
    """Readable JSON, one line a field; NumPy scalars and arrays become numbers and lists."""
    return (json.dumps(value, indent=1, default=_plain) + "\n").encode()


def _plain(value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    raise TypeError(f"a run holds JSON values and NumPy numbers, not {type(value).__name__}")
