"""A run is saved when it is time, and goes on to the same bits or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from gclip.core import stopping
from gclip.errors import UsageError
from gclip.training import Progress, RunConfig, checkpoint, checkpointer, load_data, train, trainer
from gclip.training.checkpointer import Checkpointer, CheckpointWarning, made_by
from gclip.training.contract.bits import difference
from tests.training import toy_problem  # noqa: F401 - registers the problem toy-line

CONFIG = RunConfig(
    strategy="zclip",
    optimizer="adam",
    schedule="onecycle",
    epochs=2,
    fraction=0.1,
    augment=True,
    batch_size=16,
    accumulate=2,
    gradient_noise=0.1,
    watch="layer",
)
CPU = torch.device("cpu")
HERE = made_by(CPU, 1)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that checkpoints are saved by; it goes on when it is told."""
    now = [0.0]
    monkeypatch.setattr(checkpointer.time, "perf_counter", lambda: now[0])
    return now


def opened(path: Path, said: list[str], every: float = 1e6, **more: Any) -> Checkpointer:
    return Checkpointer(path, every=every, tell=said.append, **more)


def go_on(config: RunConfig, path: Path, steps: list[int], **more: Any) -> Any:
    """Train, with a stop after so many steps, again and again until the end; the result."""
    data, said = load_data(config.task), list[str]()
    seen: list[int] = []
    for stop in [*steps, None]:

        def listen(progress: Progress, stop: int | None = stop) -> None:
            seen.append(progress.step)
            if stop is not None and progress.step >= stop:
                assert stopping.request(KeyboardInterrupt())

        keeper = opened(path, said, **more)
        try:
            result = train(
                config, dataset=data, device="cpu", checkpoint=keeper, on_progress=listen
            )
        except KeyboardInterrupt:
            assert stop is not None
            assert checkpoint.load(path)["step"] <= max(seen) + 1  # the one under way
            continue
        assert stop is None
        assert said == []
        return result
    return None


def test_a_run_of_images_goes_on_from_any_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also from the last one of an epoch, and from one that was saved before it trained again."""
    monkeypatch.setattr(trainer, "_EVERY", 0.0)
    whole = train(CONFIG, device="cpu")
    per_epoch = whole.curve[0]["step"]
    stops = [1, per_epoch - 1, per_epoch, per_epoch + 2]
    resumed = go_on(CONFIG, tmp_path / "x", stops)
    assert difference(resumed, whole, "without a stop") is None


def test_it_does_so_from_what_was_saved_by_the_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Saving within an epoch, and going on from an earlier state than that of the stop."""
    whole = train(CONFIG, device="cpu")
    saved: list[bytes] = []
    monkeypatch.setattr(checkpoint, "write", lambda path, packed: saved.append(packed))
    keeper = opened(tmp_path / "x", [], every=1e-9)
    monkeypatch.setattr(checkpointer, "_SHARE", 0)
    assert difference(train(CONFIG, device="cpu", checkpoint=keeper), whole, "unsaved") is None
    assert len(saved) == whole.curve[-1]["step"] + 1  # each step, and the end of the first epoch
    monkeypatch.undo()
    (tmp_path / "x").write_bytes(saved[7])
    resumed = train(CONFIG, device="cpu", checkpoint=opened(tmp_path / "x", []))
    assert difference(resumed, whole, "without a stop") is None


def test_a_general_problem_goes_on_from_the_latest_end_of_an_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which is kept in memory until the stop."""
    monkeypatch.setattr(trainer, "_EVERY", 0.0)
    monkeypatch.setattr(checkpointer, "_LEAST_HELD", 0.0)
    monkeypatch.setattr(checkpointer, "_SHARE", 0)
    config = RunConfig(task="toy-line(dropout=0.2)", strategy="norm", epochs=4)
    whole = train(config, device="cpu")
    per_epoch = whole.curve[0]["step"]
    resumed = go_on(config, tmp_path / "x", [per_epoch + 2, 2 * per_epoch + 1])
    assert difference(resumed, whole, "without a stop") is None
    assert checkpoint.load(tmp_path / "x")["epoch"] == 2


def test_short_runs_write_nothing(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints" / "x"
    train(CONFIG.replace(epochs=1, watch=""), device="cpu", checkpoint=opened(path, [], every=1e6))
    assert list(tmp_path.iterdir()) == []


def test_it_is_time_when_the_seconds_have_passed(tmp_path: Path, clock: list[float]) -> None:
    keeper = opened(tmp_path / "x", [], every=60.0)
    keeper.load([CONFIG])
    keeper.accept(None, HERE)
    states: list[int] = []

    def state() -> dict[str, Any]:
        states.append(1)
        clock[0] += 3.0  # it takes long
        return {"present": [0], "epoch": 1, "step": 2, "steps": 4, "seconds": 0.0, "run": {}}

    clock[0] = 59.0
    keeper.end_epoch(state, is_last=False, hold=False)
    assert not keeper.is_due()
    clock[0] = 60.0
    assert keeper.is_due()
    keeper.end_epoch(state, is_last=True, hold=False)  # the result comes next
    assert states == []
    keeper.end_epoch(state, is_last=False, hold=False)
    assert checkpoint.load(tmp_path / "x")["step"] == 2
    clock[0] = 63.0 + 149.0  # at most a fiftieth of the time goes into saving
    assert not keeper.is_due()
    clock[0] += 1.0
    assert keeper.is_due()
    assert not opened(tmp_path / "x", [], every=0.0).is_due()  # 0: at ends of epochs alone


def saved(path: Path, **more: Any) -> None:
    """A checkpoint of `CONFIG`, as far as it is looked at before training."""
    state = {"configs": [CONFIG.to_json()], "made_by": HERE, "threads": 1, "run": {}, **more}
    checkpoint.save(path, {"seconds": 0.0, **state})


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"torch": "1.0"}, "was made with torch 1.0, and here is torch"),
        ({"gclip": "0.0", "threads": 4}, "was made with gclip 0.0, threads 4, and here is gclip"),
        ({"device": "cuda"}, "it begins anew"),
    ],
)
def test_what_would_not_come_to_the_same_bits_begins_anew(
    tmp_path: Path, other: dict[str, Any], said: str
) -> None:
    path, told = tmp_path / "x", list[str]()
    saved(path, made_by={**HERE, **other})
    keeper = opened(path, told)
    found = keeper.load([CONFIG])
    assert found is not None
    assert not keeper.accept(found, HERE)
    [line] = told
    assert said in line
    assert path.exists()


def test_another_processor_and_a_named_file_go_on_and_are_told(tmp_path: Path) -> None:
    path, told = tmp_path / "x", list[str]()
    saved(path, made_by={**HERE, "processor": "another"})
    keeper = opened(path, told)
    assert keeper.accept(keeper.load([CONFIG]), HERE)
    assert "last bits" in told[0]
    saved(path, made_by={**HERE, "torch": "1.0"})
    named = Checkpointer(path)
    with pytest.warns(CheckpointWarning, match=r"was made with torch 1\.0.*the run goes on"):
        assert named.accept(named.load([CONFIG]), HERE)


@pytest.mark.parametrize("what", ["half", "text", "another config", "no state"])
def test_what_cannot_be_used_is_put_aside_and_told(tmp_path: Path, what: str) -> None:
    """And never costs more than the run's first part; a file that the user has named is refused."""
    path, aside, told = tmp_path / "x", tmp_path / "aside", list[str]()
    saved(path, **({"configs": ["{}"]} if what == "another config" else {}))
    if what == "half":
        path.write_bytes(path.read_bytes()[:-9])
    if what == "text":
        path.write_text("hello")
    content = path.read_bytes()
    config = CONFIG.replace(epochs=1, watch="")
    if what == "no state":
        saved(path, configs=[config.to_json()])
        content = path.read_bytes()
    with pytest.raises(UsageError, match="damaged|not a checkpoint|another config|does not fit"):
        train(config if what == "no state" else CONFIG, device="cpu", checkpoint=path)
    path.write_bytes(content)
    keeper = opened(path, told, aside=aside)
    result = train(config, device="cpu", checkpoint=keeper)
    assert result.status == "finished"
    [line] = told
    assert line.endswith("its run begins anew")
    assert str(aside / "x.checkpoint") in line
    assert (aside / "x.checkpoint").read_bytes() == content
    assert not path.exists()


def test_what_cannot_be_written_is_told_and_costs_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    told: list[str] = []
    keeper = opened(tmp_path / "file" / "x", told, every=0.0)
    result = train(CONFIG.replace(watch=""), device="cpu", checkpoint=keeper)
    assert result.status == "finished"
    assert len(told) == 1
    assert told[0].endswith("training goes on without")


def test_what_no_checkpoint_can_hold_is_told_once(tmp_path: Path) -> None:
    told: list[str] = []
    keeper = opened(tmp_path / "x", told, every=0.0)
    keeper.load([CONFIG])
    keeper.accept(None, HERE)

    def state() -> dict[str, Any]:
        raise UsageError("state.keep['x'] holds set, which a checkpoint cannot keep")

    for _ in range(3):
        keeper.end_epoch(state, is_last=False, hold=True)
    assert told == [
        "state.keep['x'] holds set, which a checkpoint cannot keep; training goes on without "
        "checkpoints"
    ]
    assert not (tmp_path / "x").exists()


def test_a_checkpoint_says_what_it_is_of(tmp_path: Path) -> None:
    path = tmp_path / "x"
    checkpoint.save(path, {"a": 1}, {"step": 3})
    assert checkpoint.read_about(path) == {"step": 3}
    path.write_text("hello")
    assert checkpoint.read_about(path) is None
    assert checkpoint.read_about(tmp_path / "nowhere") is None


def test_one_that_would_run_code_is_refused(tmp_path: Path) -> None:
    """However well it is sealed."""
    mark = tmp_path / "mark"

    class Payload:
        def __reduce__(self) -> Any:
            return (open, (str(mark), "w"))

    checkpoint.save(tmp_path / "x", {"a": Payload()})
    with pytest.raises(checkpoint.DamagedCheckpoint, match="is refused"):
        checkpoint.load(tmp_path / "x")
    assert not mark.exists()
