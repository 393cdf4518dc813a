"""Stores with damaged, foreign and dishonest files: readers go on, and no good run is lost."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

from gclip.errors import UsageError
from gclip.results import Results, Store, StoreWarning
from gclip.results.run_files import FILES
from gclip.training import RunConfig, RunResult
from tests.fuzz import configs
from tests.fuzz.examples import in_time

RUNS = 3
NOISE = (
    b"",
    b"\0",
    b"{",
    b"[" * 3000,
    b"null",
    b"PK\x05\x06" + b"\0" * 18,
    b"\x80\x04.",
    b"\xff" * 9,
)


class Damage(NamedTuple):
    """What is done to the first run of a store."""

    file: str
    kind: str
    place: float
    noise: bytes
    key: str
    value: Any


def damages() -> st.SearchStrategy[Damage]:
    kinds = ("cut", "flip", "noise", "replace", "remove", "folder", "link", "pipe", "swap", "seal")
    return st.builds(
        Damage,
        file=st.sampled_from(FILES),
        kind=st.sampled_from((*kinds, "seal", "seal", "seal")),
        place=st.floats(0, 1),
        noise=st.one_of(st.sampled_from(NOISE), st.binary(max_size=20)),
        key=st.sampled_from(
            ["status", "accuracy", "curve", "clipping", "scores", "metric", "layers", "message",
             "seconds", "steps", "config", "seed", "strategy", "task", "key", "sha256", "lr", "x"]
        ),
        value=configs.anything().filter(_is_json),
    )  # fmt: skip


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


@contextlib.contextmanager
def stored() -> Iterator[Path]:
    """A store with some runs."""
    folder = Path(tempfile.mkdtemp())
    store = Store(folder / "runs", create=True)
    steps = {"norm": np.ones(4, np.float32), "loss": np.ones(4, np.float32)}
    for seed in range(RUNS):
        config = RunConfig(strategy="norm", seed=seed)
        store.save(RunResult(config=config, accuracy=0.5, loss=1.0, steps=dict(steps)))
    try:
        yield store.path
    finally:
        shutil.rmtree(folder)


def apply(damage: Damage, store: Path) -> None:
    """Damage the first run."""
    folder, other = sorted(path for path in store.iterdir() if len(path.name) == 64)[:2]
    path = folder / damage.file
    content = path.read_bytes()
    place = int(damage.place * len(content))
    if damage.kind == "cut":
        path.write_bytes(content[:place])
    elif damage.kind == "flip":
        place = min(place, len(content) - 1)
        flipped = bytes([content[place] ^ (1 << len(damage.noise) % 8)])
        path.write_bytes(content[:place] + flipped + content[place + 1 :])
    elif damage.kind == "noise":
        path.write_bytes(content[:place] + damage.noise + content[place:])
    elif damage.kind == "replace":
        path.write_bytes(damage.noise)
    elif damage.kind == "swap":
        path.write_bytes((other / damage.file).read_bytes())
    elif damage.kind == "seal":
        _seal(folder, damage)
    else:
        path.unlink()
        if damage.kind == "folder":
            path.mkdir()
        elif damage.kind == "link":
            path.symlink_to(other / damage.file if damage.noise else "/dev/zero")
        elif damage.kind == "pipe" and hasattr(os, "mkfifo"):
            os.mkfifo(path)


def _seal(folder: Path, damage: Damage) -> None:
    """Exchange a value, or a file's content, and make all checksums right again."""
    files = {name: (folder / name).read_bytes() for name in FILES}
    result = json.loads(files["result.json"])
    if damage.file == "steps.npz":
        files["steps.npz"] = damage.noise
    elif damage.file == "result.json":
        result[damage.key] = damage.value
    else:
        changed = {**json.loads(files[damage.file]), damage.key: damage.value}
        files[damage.file] = json.dumps(changed).encode()
    if isinstance(result.get("sha256"), dict):
        others = {n: hashlib.sha256(files[n]).hexdigest() for n in FILES if n != "result.json"}
        result["sha256"] = {"result.json": "0" * 64, **others}
    text = json.dumps({"sha256": result.pop("sha256", None), **result}).encode()
    own = hashlib.sha256(text).hexdigest().encode()
    files["result.json"] = text.replace(b"0" * 64, own, 1)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def check(damage: Damage) -> None:
    """All readers go on; the other runs are what they were."""
    with stored() as path, in_time(damage), warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", StoreWarning)
        first = sorted(Store(path).keys())[0]
        apply(damage, path)
        # The first reader is one that only looks at a run; the second reads all.
        with contextlib.suppress(UsageError):
            Store(path).status(first)
            Store(path).load(first)
        found = Results.read(Store(path))
        assert len(found.runs) in (RUNS - 1, RUNS), damage
        assert set(found.runs["key"]) >= set(Store(path).keys()) - {first}
        for key in found.runs["key"]:
            assert Store(path).load(key).config.key == key
        Store(path, create=True).save(
            RunResult(config=RunConfig(strategy="norm", seed=9), accuracy=0.5)
        )
