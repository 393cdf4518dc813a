"""A command that torchrun has started several times: one of the processes speaks, all end alike."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import typer

from gclip.cli.interrupts import INTERRUPTED, TERMINATED, Terminated
from gclip.core.launcher import launched, speaks, speaks_on_its_machine
from gclip.text.screen import note

if TYPE_CHECKING:
    from gclip.training.parallel.world import World

T = TypeVar("T")


@contextmanager
def joined(device: str) -> Iterator[World | None]:
    """The processes that torchrun has started, for a command's work; None where it is alone.

    If one of them fails, it says so, and all end with its exit code: 2 for wrong input, 1 for the
    rest, 130 and 143 where they were interrupted. Only the first warns.

    Args:
        device: what ``--device`` says.

    Raises:
        UsageError: the processes cannot be joined, said by the first of each machine.
    """
    if launched() is None:
        yield None
        return
    from gclip.training.parallel.world import LostProcess, World

    if not speaks():
        warnings.simplefilter("ignore")
    try:
        world = World.join(device)
    except LostProcess as error:  # each has waited for others, so that each may be the only one
        note(f"gclip: error: {error}")
        raise typer.Exit(1) from None
    except ValueError:  # of the environment or the machine, so that all there have it
        if speaks_on_its_machine():
            raise
        raise typer.Exit(2) from None
    try:
        yield world
    except typer.Exit:
        raise
    except LostProcess as error:
        raise _after_loss(world, error) from None
    except KeyboardInterrupt as error:
        raise _after_interrupt(world, error) from None
    except Exception as error:
        code = 2 if isinstance(error, ValueError) else 1
        if world.claim_failure(code):
            raise
        raise typer.Exit(world.failure() or code) from None
    finally:
        world.leave()


def told(world: World | None, make: Callable[[], T]) -> T:
    """What `make` gives: where there are several processes, in the first of them."""
    return make() if world is None else world.told(make)


def in_turn(world: World | None, make: Callable[[], T]) -> T:
    """What `make` gives in this process, after the first of its machine has had it."""
    return make() if world is None else world.one_after_another(make)


def _after_loss(world: World, error: Exception) -> BaseException:
    """What this process ends with when it cannot reach another."""
    code = world.failure()
    if code is None:  # that one was killed, and could say nothing
        if world.claim_failure(1):
            note(f"gclip: error: {error}")
        return typer.Exit(1)
    if world.is_first and code == INTERRUPTED:
        return KeyboardInterrupt()
    if world.is_first and code == TERMINATED:
        return Terminated()
    return typer.Exit(code)


def _after_interrupt(world: World, error: KeyboardInterrupt) -> BaseException:
    """What this process ends with on Ctrl-C or SIGTERM, which all of them get."""
    own = TERMINATED if isinstance(error, Terminated) else INTERRUPTED
    failed = world.failure()
    if failed is not None and failed not in (INTERRUPTED, TERMINATED):
        return typer.Exit(failed)  # torchrun ends the others when one has failed
    world.claim_failure(own)
    return error if world.is_first else typer.Exit(own)
