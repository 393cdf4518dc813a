"""Runs that are sealed and say what cannot be: set aside with their reason, and all others read."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gclip.cli import main
from gclip.results import Results, Store, StoreWarning, load, load_steps
from gclip.results import plausible_arrays as arrays
from gclip.results.run_files import pack
from gclip.training import RunConfig

Make = Callable[..., Any]
STEPS = {"norm": np.ones(5, np.float32), "loss": np.ones(5, np.float32)}


def plant(
    store: Path,
    *,
    archive: bytes | None = None,
    config: Mapping[str, Any] | None = None,
    environment: Any = None,
    steps: Mapping[str, Any] = STEPS,
    raw: Mapping[str, bytes] | None = None,
    **result: Any,
) -> str:
    """A sealed run of seed 9 with these parts, as another program would write it; its key."""
    own = RunConfig(strategy="norm", seed=9)
    parts = json.loads(own.to_json()) if config is None else config
    told = {"status": "finished", "accuracy": 0.9, "seconds": 1.0, **result}
    files = sealed(own.key, parts, told, environment or {}, steps, archive, raw or {})
    folder = store / own.key
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return own.key


def sealed(
    key: str, config: Any, result: Any, environment: Any, steps: Any, archive: Any, raw: Any
) -> dict[str, bytes]:
    """The files of a run, some of which are exchanged before they are sealed."""
    files = pack(key, config, result, environment, steps)
    files |= {**raw, **({} if archive is None else {"steps.npz": archive})}
    told = json.loads(files["result.json"])
    told["sha256"] = {
        name: "0" * 64 if name == "result.json" else hashlib.sha256(content).hexdigest()
        for name, content in files.items()
    }
    told["sha256"] = {"result.json": told["sha256"].pop("result.json"), **told["sha256"]}
    text = json.dumps(told, indent=1).encode()
    own = hashlib.sha256(text).hexdigest().encode()
    files["result.json"] = text.replace(b"0" * 64, own, 1)
    return files


def npz(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in members.items():
            packed.writestr(f"{name}.npy", content)
    return file.getvalue()


def npy(values: Any = None, *, shape: tuple[int, ...] | None = None, kind: str = "<f4") -> bytes:
    """An array's file; with `shape` its head alone."""
    file = io.BytesIO()
    if shape is None:
        np.save(file, values, allow_pickle=True)
    else:
        head = {"descr": kind, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, head)
    return file.getvalue()


def lying(size: int) -> bytes:
    """An archive whose array unpacks to more than the directory says: `size` bytes."""
    whole = npz(norm=npy(np.zeros(100_000, np.float32)))
    told = (400_128).to_bytes(4, "little")
    assert whole.count(told) == 2
    return whole.replace(told, size.to_bytes(4, "little"))


ARCHIVES = {
    "no archive": (b"PK no zip", r"arrays cannot be read \(BadZipFile\)"),
    "nothing": (b"", r"arrays cannot be read \(BadZipFile\)"),
    "cut": (npz(norm=npy(np.ones(500)))[:-30], r"arrays cannot be read \(BadZipFile\)"),
    "too large": (lying(2**31), "would unpack to 2,048 MiB"),
    "larger than it says": (lying(4 * 25 + 128), r"cannot be read|not as long as it says"),
    "smaller than it says": (lying(2**20), r"cannot be read|not as long as it says"),
    "10^13 elements": (npz(norm=npy(shape=(10**13,))), "norm is not as long as it says"),
    "10^30 elements": (npz(norm=npy(shape=(10**30,))), "norm is not as long as it says"),
    "objects": (npz(norm=npy(np.array([{}], object))), "norm holds Python objects"),
    "texts": (npz(norm=npy(np.array(["a"]))), "norm holds no numbers"),
    "a number": (npz(norm=npy(np.float32(1))), "norm has 0 dimensions"),
    "a matrix": (npz(norm=npy(np.ones((2, 2)))), "norm has 2 dimensions"),
    "no array": (npz(norm=b"none"), "arrays cannot be read"),
    "many": (npz(**{f"a{i}": b"" for i in range(1001)}), "its 1001 arrays"),
    "two lengths": (npz(norm=npy(np.ones(3)), loss=npy(np.ones(4))), "norm has 3 of 4 steps"),
}

CONFIG = json.loads(RunConfig(strategy="norm", seed=9).to_json())
DEEP = b"[" * 200_000 + b"]" * 200_000

PARTS: dict[str, tuple[dict[str, Any], str]] = {
    "another config": ({"config": {**CONFIG, "seed": 8}}, "config is that of another run"),
    "a config that is no table": ({"raw": {"config.json": b"[]"}}, "config is no table"),
    "a deep config": ({"raw": {"config.json": DEEP}}, "cannot be read"),
    "a deep environment": ({"raw": {"environment.json": DEEP}}, "cannot be read"),
    "an environment that is no table": ({"raw": {"environment.json": b"3"}}, "is no table"),
    "an odd date": ({"environment": {"date": [1]}}, "environment's date is no text"),
    "accuracy 7.5": ({"accuracy": 7.5}, "accuracy is 7.5"),
    "accuracy inf": ({"accuracy": "inf"}, "accuracy is inf"),
    "no accuracy": ({"accuracy": "high"}, "accuracy is no number"),
    "a list": ({"accuracy": [1]}, "accuracy is no number"),
    "a long integer": ({"loss": 10**400}, "loss is no number"),
    "a negative time": ({"seconds": -1}, "seconds are -1"),
    "an unknown status": ({"status": "done"}, "status is 'done'"),
    "no status": ({"status": None}, "status is 'None'"),
    "a status of lists": ({"status": [[]]}, "status is"),
    "a message of numbers": ({"message": 3}, "message is no text"),
    "a curve that is no list": ({"curve": {"epoch": 1}}, "curve is no list"),
    "a point that is no table": ({"curve": [1]}, "point that is no table"),
    "a point of words": ({"curve": [{"epoch": 1, "loss": "low"}]}, "loss is no number"),
    "clipping that is no table": ({"clipping": [1]}, "clipping is no table"),
    "quantiles": ({"clipping": {"norm_quantiles": {"a": 1}}}, "quantile is no number"),
    "a place of words": (
        {"clipping": {"first_not_finite": {"step": "a", "parameters": []}}},
        "first_not_finite is no step with names",
    ),
    "a place of numbers": (
        {"clipping": {"first_not_finite": {"step": 1, "parameters": [1]}}},
        "first_not_finite is no step with names",
    ),
    "a rate of words": ({"clipping": {"clip_rate": "often"}}, "clip_rate is no number"),
    "scores": ({"scores": {"x": []}}, "score x is no number"),
    "a metric of nothing": ({"metric": {"name": "x"}}, "metric is none"),
    "a metric of lists": ({"metric": {"name": [], "better": []}}, "metric is none"),
    "layers without arrays": ({"layers": ["a"]}, "layers do not fit"),
    "layers that are no texts": ({"layers": [1]}, "layers are no texts"),
}


def aside(store: Path, key: str, reason: str) -> None:
    """Every reader sets the run aside, names it and the reason, and reads the other one."""
    with pytest.warns(StoreWarning, match=f"run {key[:12]} .*damaged.*") as told:
        read = Results.read(Store(store))
    assert re.search(reason, str(told[0].message)), str(told[0].message)
    assert len(told) == 1
    assert list(read.runs["seed"]) == [1]
    assert os.listdir(store / ".damaged") == [key]


@pytest.fixture
def store(tmp_path: Path, make: Make) -> Path:
    """A store with one sound run, of seed 1."""
    Store(tmp_path / "runs", create=True).save(make("norm", 1))
    return tmp_path / "runs"


def test_what_is_sound_is_read_as_it_is(store: Path) -> None:
    key = plant(store, curve=[{"epoch": 1, "loss": "nan"}], clipping={"clip_rate": 0.5})
    assert list(load(store)["seed"]) == [1, 9]
    stored = Store(store).read(key)
    assert stored is not None
    np.testing.assert_array_equal(stored.steps()["norm"], STEPS["norm"])


def test_a_run_without_steps_is_a_run(store: Path) -> None:
    plant(store, archive=npz())
    assert list(load(store)["seed"]) == [1, 9]
    assert set(load_steps(store)["seed"]) == {1}


@pytest.mark.parametrize("kind", ARCHIVES)
def test_arrays_that_cannot_be(kind: str, store: Path) -> None:
    archive, reason = ARCHIVES[kind]
    aside(store, plant(store, archive=archive), reason)


@pytest.mark.parametrize("kind", PARTS)
def test_parts_that_cannot_be(kind: str, store: Path) -> None:
    parts, reason = PARTS[kind]
    aside(store, plant(store, **parts), reason)


def test_no_archive_is_unpacked_whole(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bomb is told from what its directory says, and one that lies from its first pieces."""
    read: list[int] = []
    real = zipfile.ZipExtFile.read

    def counted(self: zipfile.ZipExtFile, n: int | None = -1) -> bytes:
        content = real(self, n)
        read.append(len(content))
        return content

    monkeypatch.setattr(zipfile.ZipExtFile, "read", counted)
    monkeypatch.setattr(arrays, "MOST_BYTES", 2**19)
    key = plant(store, archive=npz(norm=npy(np.zeros(2**18, np.float32))))
    aside(store, key, "would unpack to 1 MiB")
    assert sum(read) < 2**14


@pytest.mark.filterwarnings("default::gclip.results.StoreWarning")
def test_a_command_goes_on_without_the_run(
    store: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    key = plant(store, status="done", archive=b"")
    code = main(
        ["figures", "--figure", "scores", "--store", str(store), "--out", str(tmp_path / "out")]
    )
    said = capsys.readouterr().err
    assert code == 0, said
    assert f"run {key[:12]}" in said
    assert "status is 'done'" in said
