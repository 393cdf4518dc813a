"""``kill -9`` and SIGTERM at random moments: the same command goes on to the same bits."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from tests.drills.commands import children_of, differences, finish, outliving, start, wait_for

SEED = 20
KILLS = 40
STRATEGIES = ("none", "norm", "agc", "zclip", "percentile", "spam")
CPU = ("--device", "cpu")
DIGITS = (*CPU, "--epochs", "12", "--augment")

TRAIN: dict[str, tuple[str, ...]] = {
    **{
        f"{optimizer} {name}": ("train", "-s", name, "--optimizer", optimizer, *rate, *DIGITS)
        for optimizer, rate in (("sgd", ()), ("adam", ("--lr", "0.002")))
        for name in STRATEGIES
    },
    "images": (
        *("train", "-s", "agc", "--task", "images", "--data", "images", "--size", "16"),
        *(*CPU, "--epochs", "30"),
    ),
    "lstm": ("train", "-s", "norm", "--model", "lstm", "--lr", "0.05", *CPU, "--epochs", "6"),
    "gan-digits": ("train", "-s", "norm", "--task", "gan-digits", *CPU, "--epochs", "4"),
    "adding": ("train", "-s", "norm", "--task", "adding(length=20)", *CPU, "--epochs", "4"),
    "cartpole-dqn": ("train", "-s", "norm", "--task", "cartpole-dqn", *CPU, "--epochs", "6"),
    "cartpole-reinforce": (
        *("train", "-s", "norm", "--task", "cartpole-reinforce", *CPU, "--epochs", "6"),
    ),
}
COMPARE: dict[str, tuple[str, ...]] = {
    "two workers": (
        *("compare", "-s", "norm", "-s", "agc", "--seeds", "2", "--workers", "2"),
        *("--fleet", "off", "--no-figures", *DIGITS),
    ),
    "fleets": (
        *("compare", "-s", "norm", "-s", "zclip", "-s", "none", "--seeds", "2", "--workers", "1"),
        *("--fleet", "3", "--no-figures", "--lr", "0.02", *DIGITS),
    ),
}
CASES = {**TRAIN, **COMPARE}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With images in it, and a store of what every command makes when nobody stops it."""
    made = tmp_path_factory.mktemp("kills")
    chance = random.Random(0)
    for part, count in (("train", 60), ("test", 20)):
        for name in ("cat", "dog"):
            (made / "images" / part / name).mkdir(parents=True)
            for place in range(count):
                image = Image.frombytes("RGB", (16, 16), chance.randbytes(3 * 16 * 16))
                image.save(made / "images" / part / name / f"{place}.png")
    return made


def reference(folder: Path, name: str) -> Path:
    """What a command makes when nobody stops it, made when first asked for."""
    store = folder / f"reference-{list(CASES).index(name)}"
    if not store.exists():
        finish(folder, store.name, *CASES[name])
    return store


def stopped(
    folder: Path, store: str, name: str, how: signal.Signals, chance: random.Random
) -> tuple[int, str, list[int]] | None:
    """A command stopped at a random moment of its training: its exit code, what it said, and its
    children that outlive it. None if it had ended before."""
    process = start(folder, store, *CASES[name])
    try:
        # One in four before the first epoch's end, the others after it.
        early = chance.random() < 0.25
        if not wait_for(process, folder / store / (".tmp" if early else "checkpoints")):
            return None
        time.sleep(chance.uniform(0.0, 3.0))
        if process.poll() is not None:
            return None
        children = children_of(process.pid)
        process.send_signal(how)
        _, said = process.communicate(timeout=60)
        return process.returncode, said, outliving(children)
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=lambda how: how.name)
def test_the_same_command_goes_on_to_the_same_bits(
    folder: Path, how: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(SEED + how)
    names = _spread(list(CASES), chance)
    equal, orphans, kept = 0, 0, 0
    for place, name in enumerate(names):
        found = None
        for attempt in range(20):
            store = f"{how.name}-{place}-{attempt}"
            found = stopped(folder, store, name, how, chance)
            if found is not None:
                break
        assert found is not None, f"{name} always ends before it is stopped"
        code, said, alive = found
        orphans += len(alive)
        assert code == (-9 if how == signal.SIGKILL else 143), (name, code, said)
        if how == signal.SIGTERM:
            lines = [line for line in said.splitlines() if line.startswith("gclip: ")]
            assert len(lines) == 1, said
            assert lines[0].startswith("gclip: terminated: "), said
            assert "Traceback" not in said
        checkpoints = folder / store / "checkpoints"
        kept += checkpoints.is_dir() and any(checkpoints.iterdir())
        finish(folder, store, *CASES[name])
        differing = list(differences(folder / store, reference(folder, name)))
        assert not differing, (name, differing)
        equal += 1
        assert not list(checkpoints.glob("*")), name
    assert orphans == 0
    with capsys.disabled():
        print(
            f"\n{how.name}: {equal} of {len(names)} equal bit for bit, {kept} of them went on from "
            f"a checkpoint; {orphans} processes outlived their parent"
        )


def _spread(names: Sequence[str], chance: random.Random) -> list[str]:
    """So many that all come equally often, in random order."""
    chosen = [names[place % len(names)] for place in range(KILLS)]
    chance.shuffle(chosen)
    return chosen
