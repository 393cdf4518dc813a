"""The doctor: watches some steps of a training loop, and says what is wrong with its clipping."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any, TypeAlias, overload

import torch
from torch import Tensor, nn

from gclip.doctor.diagnosis import diagnose
from gclip.doctor.events import Observation
from gclip.doctor.findings import Findings
from gclip.doctor.taps import tap
from gclip.doctor.watcher import Watcher
from gclip.errors import UsageError

Models: TypeAlias = nn.Module | Mapping[str, nn.Module] | Iterable[nn.Module]
Optimizers: TypeAlias = (
    torch.optim.Optimizer | Mapping[str, torch.optim.Optimizer] | Iterable[torch.optim.Optimizer]
)


class Doctor:
    """Watches the steps that a loop makes within a ``with`` block; printing it says what it saw.

    >>> import torch, gclip
    >>> model = torch.nn.Linear(4, 1)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> with gclip.doctor(model, optimizer) as examined:
    ...     for _ in range(20):
    ...         optimizer.zero_grad()
    ...         model(torch.randn(16, 4)).square().mean().backward()
    ...         optimizer.step()
    ...         _ = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    >>> examined.findings.codes
    ('after-step',)

    The loop computes the same bits as without it. While it watches, torch's clipping functions,
    ``backward``, optimizers' steps, gradient scalers and gclip's clippers tell it what they do;
    whatever else changes gradients it finds by their norms. It reads every gradient a few times a
    step, and waits for the device to do so. Afterwards nothing of it is left.

    Args:
        model: a module, or several in a mapping or a list.
        optimizer: one or several, in a mapping or a list. Others that train the same parameters
            are seen as well.

    Raises:
        UsageError: no parameters, or something that is no module or no optimizer.
    """

    def __init__(self, model: Models, optimizer: Optimizers) -> None:
        self._named = _parameters(model)
        self._optimizers = _named(optimizer, torch.optim.Optimizer, "optimizer")
        self._watcher: Watcher | None = None  # while it watches
        self._seen: Observation | None = None  # afterwards
        self._stack = ExitStack()

    def __enter__(self) -> Doctor:
        if self._watcher is not None or self._seen is not None:
            raise UsageError("a doctor watches once: make another with gclip.doctor(…)")
        if _watching:
            raise UsageError("a doctor is watching already; leave its with block first")
        self._watcher = Watcher(self._named, self._optimizers)
        _watching.append(self)
        self._stack.callback(_watching.clear)
        try:
            tap(self._watcher, self._stack)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()
        if self._watcher is not None:
            self._seen, self._watcher = self._watcher.observation(), None
            self._named.clear()  # what was seen holds no tensors
            self._optimizers.clear()

    @property
    def findings(self) -> Findings:
        """What there is to say, worst first; within the block, of the steps so far.

        Raises:
            UsageError: nothing has been watched yet.
        """
        seen = self._seen if self._watcher is None else self._watcher.observation()
        if seen is None:
            raise UsageError(
                "nothing was watched yet: use it as `with gclip.doctor(…) as examined`"
            )
        return diagnose(seen)

    def __str__(self) -> str:
        return str(self.findings)


STEPS = 20
_watching: list[Doctor] = []


@overload
def doctor(watched: Models, optimizer: Optimizers) -> Doctor: ...
@overload
def doctor(*, model: Models, optimizer: Optimizers) -> Doctor: ...
@overload
def doctor(
    watched: Callable[[], Any], optimizer: Optimizers, *, model: Models, steps: int = STEPS
) -> Findings: ...
def doctor(
    watched: Any = None, optimizer: Any = None, *, model: Any = None, steps: int = STEPS
) -> Doctor | Findings:
    """What is wrong with the clipping of this training loop?

    Around some steps of any loop::

        with gclip.doctor(model, optimizer) as examined:
            for inputs, targets in batches:
                ...
        print(examined)

    or of a function that makes one step::

        print(gclip.doctor(step, model=model, optimizer=optimizer, steps=20))

    Args:
        watched: the model; or, with `model`, a function that makes one step of the training.
        optimizer: one or several, in a mapping or a list.
        model: a module, or several in a mapping or a list.
        steps: how often the function is called.

    Returns:
        A `Doctor`, to be used in a ``with`` statement; of a function the `Findings`.

    Raises:
        UsageError: what is given is no module, no optimizer, or no function; or `steps` is not at
            least 1.
    """
    if model is None or watched is None:
        return Doctor(watched if model is None else model, optimizer)
    if not callable(watched):
        raise UsageError(
            f"the doctor calls a function that makes one step, but got {type(watched).__name__}; "
            "or use `with gclip.doctor(model, optimizer) as examined` around a loop"
        )
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
        raise UsageError(f"steps must be a whole number of at least 1, but got {steps!r}")
    with Doctor(model, optimizer) as examined:
        for _ in range(steps):
            watched()
    return examined.findings


def _parameters(model: Any) -> dict[str, Tensor]:
    """The parameters by name; of several models with the model's name before it."""
    if isinstance(model, nn.Module):
        found = dict[str, Tensor](model.named_parameters())
    else:
        found = {
            f"{name}.{inner}": param
            for name, each in _named(model, nn.Module, "model").items()
            for inner, param in each.named_parameters()
        }
    if not found:
        raise UsageError("the model has no parameters, so there is nothing to watch")
    return found


def _named(given: Any, kind: type[Any], what: str) -> dict[str, Any]:
    """One or several things of a kind, by name: their keys, or their places in a list."""
    if isinstance(given, kind):
        return {"": given}
    if isinstance(given, Mapping):
        found = {str(name): each for name, each in given.items()}
    elif isinstance(given, Iterable) and not isinstance(given, str | bytes | Tensor):
        found = {f"{what} {place}": each for place, each in enumerate(given)}
    else:
        found = {"": given}
    wrong = [each for each in found.values() if not isinstance(each, kind)]
    if wrong or not found:
        got = type(wrong[0]).__name__ if wrong else "none"
        raise UsageError(
            f"the doctor's {what} is a torch {kind.__name__}, or several in a mapping or a list, "
            f"but got {got}"
        )
    return found
