"""Of several processes one speaks, and all end with the same code, whoever fails first."""

from __future__ import annotations

from typing import Any

import pytest
import typer

from gclip.cli import processes
from gclip.cli.interrupts import INTERRUPTED, TERMINATED, Terminated
from gclip.cli.processes import joined
from gclip.errors import UsageError
from gclip.training.parallel import world as worlds
from gclip.training.parallel.world import LostProcess


class Several:
    """As `World`, whose other processes have failed with `others`, if they have."""

    def __init__(self, rank: int, others: int | None) -> None:
        self.is_first, self.code, self.left = rank == 0, others, False

    def claim_failure(self, code: int) -> bool:
        first = self.code is None
        self.code = code if first else self.code
        return first

    def failure(self) -> int | None:
        return self.code

    def leave(self) -> None:
        self.left = True


@pytest.fixture
def several(monkeypatch: pytest.MonkeyPatch) -> Any:
    def make(rank: int, others: int | None) -> Several:
        world = Several(rank, others)
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setattr(worlds.World, "join", lambda device: world)
        return world

    return make


def ended(error: BaseException) -> BaseException:
    with pytest.raises(BaseException) as raised, joined("cpu"):  # noqa: PT011
        raise error
    return raised.value


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("rank", "others", "error", "end"),
    [
        (0, None, UsageError("no"), UsageError),
        (1, None, UsageError("no"), UsageError),  # who is first says it
        (0, 2, UsageError("no"), 2),
        (1, None, RuntimeError("boom"), RuntimeError),
        (0, 1, LostProcess("gone"), 1),
        (0, 2, LostProcess("gone"), 2),
        (0, INTERRUPTED, LostProcess("gone"), KeyboardInterrupt),  # it tells what is kept
        (1, INTERRUPTED, LostProcess("gone"), INTERRUPTED),
        (0, TERMINATED, LostProcess("gone"), Terminated),
        (0, None, KeyboardInterrupt(), KeyboardInterrupt),
        (1, None, KeyboardInterrupt(), INTERRUPTED),
        (0, INTERRUPTED, KeyboardInterrupt(), KeyboardInterrupt),
        (1, None, Terminated(), TERMINATED),
        (0, 2, Terminated(), 2),  # by torchrun, because the other has failed
        (1, 1, Terminated(), 1),
        (0, None, typer.Exit(0), 0),
    ],
)
def test_how_a_process_ends(
    rank: int, others: int | None, error: BaseException, end: Any, several: Any, capsys: Any
) -> None:
    world = several(rank, others)
    raised = ended(error)
    if isinstance(end, int):
        assert isinstance(raised, typer.Exit)
        assert raised.exit_code == end
    else:
        assert type(raised) is end
    assert world.left
    assert capsys.readouterr() == ("", "")


@pytest.mark.filterwarnings("default")
def test_a_process_that_was_killed_is_told_of_by_one(several: Any, capsys: Any) -> None:
    several(0, None)
    raised = ended(LostProcess("another process of this run has ended"))
    assert isinstance(raised, typer.Exit)
    assert raised.exit_code == 1
    assert capsys.readouterr().err == "gclip: error: another process of this run has ended\n"


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("rank", [0, 1])
def test_who_cannot_join(rank: int, several: Any, monkeypatch: Any, capsys: Any) -> None:
    several(rank, None)
    monkeypatch.setenv("LOCAL_RANK", str(rank))

    def refuse(device: str) -> Any:
        raise UsageError("no such device")

    monkeypatch.setattr(worlds.World, "join", refuse)
    with pytest.raises((UsageError, typer.Exit)) as raised, joined("cpu"):
        pass
    assert isinstance(raised.value, UsageError if rank == 0 else typer.Exit)
    assert getattr(raised.value, "exit_code", 2) == 2


def test_alone_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    with joined("cpu") as world:
        assert world is None
    assert processes.told(None, lambda: 3) == 3
    assert processes.in_turn(None, lambda: 4) == 4
