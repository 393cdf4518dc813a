"""The promises of every strategy, and the list of all of them.

A promise is a function of a `Subject` that yields one sentence for each thing it finds broken,
with the numbers; one that yields nothing is kept::

    @promise("a gradient of zero stays zero")
    def zero(subject: Subject) -> Iterator[str]:
        ...
        yield f"step {step}: the norm is {norm:g}, not 0"

Where it makes no sense for a strategy it raises `DoesNotApply` with the reason.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from gclip.testing.promise import Contract
from gclip.testing.promise import Promise as AnyPromise
from gclip.testing.promise import Result as Result

if TYPE_CHECKING:
    from gclip.testing.subject import Subject

Promise: TypeAlias = "AnyPromise[Subject]"

CONTRACT: Contract[Subject] = Contract(
    "gclip.testing",
    *("fields", "values", "hard_gradients", "kinds", "storage", "memory", "states", "devices"),
    "steps",
)
promise = CONTRACT.promise
promises = CONTRACT.promises
