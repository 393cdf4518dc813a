"""``kill -9`` and SIGTERM at random moments: the same command goes on to the same bits."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from PIL import Image

from gclip.results import Store
from gclip.training.contract.bits import difference
from tests.drills.processes import Loaded, outliving

pytestmark = pytest.mark.drill

SEED = 20
KILLS = 40
STRATEGIES = ("none", "norm", "agc", "zclip", "percentile", "spam")
CPU = ("--device", "cpu")
DIGITS = (*CPU, "--epochs", "5", "--fraction", "0.3", "--augment")

TRAIN: dict[str, tuple[str, ...]] = {
    **{
        f"{optimizer} {name}": ("train", "-s", name, "--optimizer", optimizer, *rate, *DIGITS)
        for optimizer, rate in (("sgd", ()), ("adam", ("--lr", "0.002")))
        for name in STRATEGIES
    },
    "images": (
        *("train", "-s", "agc", "--task", "images", "--data", "images", "--size", "16"),
        *(*CPU, "--epochs", "10"),
    ),
    "lstm": ("train", "-s", "norm", "--model", "lstm", "--lr", "0.05", *DIGITS),
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


def command(name: str, store: str) -> tuple[str, ...]:
    """What is typed, with a checkpoint at every epoch's end."""
    return (*CASES[name], "--store", store, "--checkpoint-every", "0")


def reference(loaded: Loaded, folder: Path, name: str) -> tuple[Path, tuple[float, float]]:
    """What a command makes when nobody stops it, and the seconds from its opening of the store,
    and from its first checkpoint, to its end; made when first asked for."""
    store = folder / f"reference-{list(CASES).index(name)}"
    seconds = store.with_suffix(".seconds")
    if not seconds.exists():
        with loaded.start(folder, *command(name, store.name)) as process:
            assert process.wait_for(store / ".tmp")
            began = saved = time.monotonic()
            if process.wait_for(store / "checkpoints"):
                saved = time.monotonic()
            assert process.wait() == 0, process.said
            ended = time.monotonic()
        seconds.write_text(f"{ended - began} {ended - saved}")
    whole, after_first = map(float, seconds.read_text().split())
    return store, (whole, after_first)


def stopped(
    loaded: Loaded,
    folder: Path,
    store: str,
    name: str,
    how: signal.Signals,
    begins: str,
    after: float,
) -> tuple[int, str, list[int]] | None:
    """A command stopped so many seconds after it has put something into a folder: its exit code,
    what it said, and its children that outlive it. None if it had ended before."""
    with loaded.start(folder, *command(name, store)) as process:
        if not process.wait_for(folder / store / begins):
            return None
        time.sleep(after)
        if process.poll() is not None:
            return None
        children = process.children()
        process.send(how)
        code = process.wait()
        return code, process.said, outliving(children)


def differences(store: Path, reference: Path) -> Iterator[str]:
    """How the runs of a store differ from those of another; nothing where all bits are equal."""
    ours, theirs = Store(store), Store(reference)
    if ours.keys() != theirs.keys():
        yield f"{len(ours.keys())} runs instead of {len(theirs.keys())}"
    for key in set(ours.keys()) & set(theirs.keys()):
        said = difference(ours.load(key), theirs.load(key), "uninterrupted")
        if said is not None:
            yield f"{key[:12]}: {said}"


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=lambda how: how.name)
def test_the_same_command_goes_on_to_the_same_bits(
    loaded: Loaded, folder: Path, how: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(SEED + how)
    names = _spread(list(CASES), chance)
    orphans, kept, wrong = 0, 0, list[tuple[str, object]]()
    for place, name in enumerate(names):
        whole, seconds = reference(loaded, folder, name)
        found = None
        for attempt in range(20):
            store = f"{how.name}-{place}-{attempt}"
            # One in four at any time from the opening of the store, the others after an epoch.
            early = chance.random() < 0.25
            begins, most = (".tmp", seconds[0]) if early else ("checkpoints", seconds[1])
            after = chance.uniform(0.0, most)
            found = stopped(loaded, folder, store, name, how, begins, after)
            if found is not None:
                break
        assert found is not None, f"{name} always ends before it is stopped"
        code, said, alive = found
        orphans += len(alive)
        lines = [line for line in said.splitlines() if line.startswith("gclip: ")]
        if how == signal.SIGTERM and (
            (code, len(lines)) != (143, 1)
            or "gclip: terminated: " not in said
            or "Traceback" in said
        ):
            wrong.append((name, (code, said)))
        checkpoints = folder / store / "checkpoints"
        kept += checkpoints.is_dir() and any(checkpoints.iterdir())
        loaded.run(folder, *command(name, store))
        differing = list(differences(folder / store, whole))
        if differing or list(checkpoints.glob("*")):
            wrong.append((name, (after, differing)))
        with capsys.disabled():
            said = f"{how.name} {place}: {name} after {after:.2f} s: {differing or 'equal'}"
            print(said, flush=True)
    with capsys.disabled():
        print(
            f"{how.name}: {len(names) - len(wrong)} of {len(names)} equal bit for bit, {kept} of "
            f"them from a checkpoint; {orphans} processes outlived their parent by 5 s"
        )
    assert wrong == []
    assert orphans == 0


def _spread(names: Sequence[str], chance: random.Random) -> list[str]:
    """So many that all come equally often, in random order."""
    chosen = [names[place % len(names)] for place in range(KILLS)]
    chance.shuffle(chosen)
    return chosen
