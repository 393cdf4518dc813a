"""The processes that train one run: which of them this one is, and what they tell one another."""

from __future__ import annotations

import contextlib
import datetime
import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from gclip.core.launcher import launched
from gclip.errors import UsageError
from gclip.training.device import resolve_device

T = TypeVar("T")

PATIENCE = datetime.timedelta(minutes=10)
"""How long a process waits for the others: a download or an epoch's measurement takes less."""

_TORCH: Any = dist  # whose annotations leave the stores out
_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class LostProcess(RuntimeError):
    """Another process of the run has ended, or has not answered for too long."""


class World:
    """The processes of one run, of which this is one.

    In a script that ``torchrun --nproc-per-node 2`` starts, every process trains its share::

        world = World.join("cpu")
        result = train(RunConfig(strategy="agc"), device="cpu", world=world)
        if world.is_first:
            store.save(result)
        world.leave()

    Args:
        store: by which the processes tell one another of failures.
        device: of this process.

    Attributes:
        rank: the number of this process, from 0.
        size: how many there are.
        device: what this process computes on.
    """

    def __init__(self, store: Any, device: torch.device) -> None:
        self._store, self.device = store, device
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    @classmethod
    def join(
        cls, device: str | torch.device = "auto", *, patience: datetime.timedelta = PATIENCE
    ) -> World:
        """Meet the other processes that torchrun has started.

        Args:
            device: ``cpu``; or ``cuda``, of which each process of a machine takes one of its own.
            patience: how long to wait for another process, now and whenever it is waited for.

        Raises:
            UsageError: torchrun has not started this process, or there is no such device.
            LostProcess: the others do not come.

        Example:
            >>> World.join("cpu")
            Traceback (most recent call last):
            ...
            gclip.errors.UsageError: a run over several processes is started by torchrun ...
        """
        lacking = [name for name in _VARIABLES if not os.environ.get(name)]
        if launched() is None or lacking:
            raise UsageError(
                "a run over several processes is started by torchrun (torchrun --nproc-per-node 2 "
                f"-m gclip train …), which sets {', '.join(_VARIABLES)}; "
                + (f"{', '.join(lacking)} is not set" if lacking else "WORLD_SIZE is not above 1")
            )
        where = own_device(device)
        if where.type == "cuda":
            torch.cuda.set_device(where)
        backend = "cpu:gloo,cuda:nccl" if where.type == "cuda" else "gloo"
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        with _telling("meet"):
            store, rank, size = next(_TORCH.rendezvous("env://", timeout=patience))
            store = _TORCH.PrefixStore(f"gclip/{attempt}", store)
            dist.init_process_group(
                backend, store=_TORCH.PrefixStore("group", store), rank=rank, world_size=size,
                timeout=patience,
            )  # fmt: skip
        return cls(_TORCH.PrefixStore("world", store), where)

    @property
    def is_first(self) -> bool:
        """Whether this is the process that prints and stores."""
        return self.rank == 0

    def leave(self) -> None:
        """The run is over: let go of the others."""
        if dist.is_initialized():
            dist.destroy_process_group()

    # -- what they tell one another ------------------------------------------------------------

    def add_up(self, *tensors: Tensor) -> None:
        """Make each of `tensors` the sum of all processes' ones, to the same bits everywhere."""
        with _telling("add up"):
            _together(tensors, dist.all_reduce)

    def spread(self, *tensors: Tensor) -> None:
        """Give all processes the first one's `tensors`."""
        with _telling("spread"):
            _together(tensors, functools.partial(dist.broadcast, src=0))

    def told(self, make: Callable[[], T]) -> T:
        """What the first process makes, in all of them; the others wait for it."""
        values: list[Any] = [make() if self.is_first else None]
        with _telling("tell"):
            dist.broadcast_object_list(values, 0, device=torch.device("cpu"))
        return cast(T, values[0])

    def one_after_another(self, make: Callable[[], T]) -> T:
        """What each process makes for itself: the first of every machine, then the others there.

        So that what is downloaded and cached is downloaded once.
        """
        first = os.environ.get("LOCAL_RANK", str(self.rank)) == "0"
        made = make() if first else None
        self._meet()
        return cast(T, made) if first else make()

    def agree(self, facts: Mapping[str, Any]) -> None:
        """Check that all processes have the same `facts`, by their names.

        Raises:
            UsageError: they have not, naming the first that differs.
        """
        everybodys: list[Any] = [None] * self.size
        with _telling("compare"):
            dist.all_gather_object(everybodys, dict(facts))
        for name, value in everybodys[0].items():
            for rank, other in enumerate(everybodys):
                if other.get(name) != value:
                    raise UsageError(
                        f"the processes of a run must have the same {name}, but process 0 has "
                        f"{value!r} and process {rank} has {other.get(name)!r}"
                    )

    def _meet(self) -> None:
        self.add_up(torch.zeros(1))

    # -- failures ------------------------------------------------------------------------------

    def claim_failure(self, code: int) -> bool:
        """Say that the run has failed; whether this process is the first to say so.

        The others see it when they can no longer reach this one.

        Args:
            code: what all processes are to end with.
        """
        try:
            first = bool(self._store.add("failures", 1) == 1)
            if first:
                self._store.set("code", str(code))
        except (RuntimeError, ValueError):  # the process that keeps the store has ended
            return True
        return first

    def failure(self) -> int | None:
        """The code that the run has failed with; None as long as it has not."""
        try:
            return int(self._store.get("code")) if self._store.check(["code"]) else None
        except (RuntimeError, ValueError):
            return None


def _together(tensors: Sequence[Tensor], collective: Callable[[Tensor], Any]) -> None:
    """One collective for all tensors of a dtype, in place."""
    by_dtype: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        by_dtype.setdefault(tensor.dtype, []).append(tensor)
    for same in by_dtype.values():
        if len(same) == 1 and same[0].is_contiguous():
            collective(same[0])
            continue
        flat = torch.cat([tensor.reshape(-1) for tensor in same])
        collective(flat)
        parts = torch.split(flat, [tensor.numel() for tensor in same])
        shaped = [part.view(like.shape) for part, like in zip(parts, same, strict=True)]
        torch._foreach_copy_(same, shaped)


def own_device(device: str | torch.device) -> torch.device:
    """The device of this process: of several GPUs the one with its number on its machine.

    Raises:
        UsageError: no such device, fewer GPUs than processes, or one that cannot be shared out.
    """
    where = resolve_device(device)
    if where.type == "mps":
        raise UsageError(
            "device mps cannot exchange gradients between processes; take cpu, or train in one "
            "process"
        )
    if where.type == "cpu" or ":" in str(where):
        return where
    number, there = int(os.environ.get("LOCAL_RANK") or os.environ["RANK"]), _gpus()
    processes = int(os.environ.get("LOCAL_WORLD_SIZE") or number + 1)
    if processes > there:  # all processes of the machine say so, not only those without one
        raise UsageError(
            f"each process takes a GPU of its own, but this machine has {there} for {processes} "
            f"processes; start at most {there} here (--nproc-per-node {there}), or take cpu"
        )
    return torch.device("cuda", number)


@functools.cache
def _gpus() -> int:
    return torch.cuda.device_count()


@contextlib.contextmanager
def _telling(what: str) -> Iterator[None]:
    """What torch raises when another process is gone, in a sentence."""
    try:
        yield
    except RuntimeError as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else "no message"
        raise LostProcess(
            f"another process of this run has ended or does not answer, so that nothing can be "
            f"exchanged with it ({what}: {first[:200]})"
        ) from error
