"""Which strategy works on which parameters: the parts of a clipper, and their memory by name.

A part's memory belongs to its groups, and groups have names. So memory can be taken over by name:
from a saved state, whatever order its parameters had, and from the parts that the clipper had
before its parameters changed. Groups that are new get a part of their own, whose memory begins
now; nobody's past is mixed with theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from torch import Tensor

from gclip.clipping.bound_strategy import BoundStrategy
from gclip.clipping.groups import Groups, layer_of
from gclip.clipping.parameters import Named, resolve
from gclip.clipping.record import Record
from gclip.clipping.state import copied
from gclip.core.strategy import SIDES, Strategy
from gclip.errors import UsageError

Place: TypeAlias = tuple[int, str, int]
"""Of a part: which pattern, which side, and how many strategies of the chain act before it."""

Make: TypeAlias = Callable[[Strategy, list[str], list[Tensor], list[int]], BoundStrategy]


class PartState(NamedTuple):
    """What a part knows, as it is saved and taken over.

    Attributes:
        strategy: its spelling.
        groups: the groups' names, in the order in which memory has them.
        shapes: of its parameters, by name.
        memory: as the strategy keeps it; None before the first step.
    """

    place: Place
    strategy: str
    groups: tuple[str, ...]
    shapes: dict[str, tuple[int, ...]]
    memory: Any

    @classmethod
    def of(cls, place: Place, strategy: Strategy, groups: Groups, memory: Any) -> PartState:
        """What a part knows, its memory copied."""
        shapes = {n: tuple(s) for n, s in zip(groups.names, groups.shapes, strict=True)}
        return cls(place, str(strategy), groups.labels, shapes, copied(memory))

    def saved(self) -> dict[str, Any]:
        """As dicts, lists and tensors."""
        return {
            "place": list(self.place),
            "strategy": self.strategy,
            "groups": list(self.groups),
            "shapes": {name: list(shape) for name, shape in self.shapes.items()},
            "memory": self.memory,
        }

    @classmethod
    def read(cls, saved: Any) -> PartState:
        """What `saved` wrote."""
        pattern, side, depth = saved["place"]
        shapes = {name: tuple(shape) for name, shape in saved["shapes"].items()}
        groups = tuple(saved["groups"])
        return cls((pattern, side, depth), saved["strategy"], groups, shapes, saved["memory"])


def saved_state(step: int, parts: Sequence[PartState], record: Record) -> dict[str, Any]:
    """A clipper's ``state_dict()``.

    Memory and record change their shapes and keys as a run goes on, which
    ``torch.distributed.checkpoint`` does not allow between what it has saved and what it loads
    into; what stands in a tuple it takes for one thing.
    """
    return {
        "step": step,
        "parts": tuple(part.saved() for part in parts),
        "record": (record.state_dict(),),
    }


def read_state(state: Mapping[str, Any]) -> tuple[int, list[PartState], dict[str, Any]]:
    """What `saved_state` put together: the step, the parts, and the record's state.

    Raises:
        UsageError: it is something else.
    """
    try:
        (record,) = state["record"]
        return int(state["step"]), [PartState.read(each) for each in state["parts"]], record
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(
            "this is not the state of a clipper of this version of gclip: it should be what "
            f"clipper.state_dict() gave ({type(error).__name__}: {error})"
        ) from error


Assigned: TypeAlias = list[tuple[tuple[Strategy, ...], list[int]]]


def arrange(
    named: Named, assigned: Assigned, make: Make, earlier: Sequence[PartState] = ()
) -> dict[Place, list[BoundStrategy]]:
    """The parts for some parameters, in the order in which they act on the gradients.

    Args:
        assigned: for each pattern its strategies and the places of its parameters.
        make: makes a part of a strategy, names, parameters and their places.
        earlier: the parts before, whose memory those that work on the same groups take over.
    """
    found: dict[Place, list[BoundStrategy]] = {}
    for place, strategy, last, indices in _tasks(assigned):
        olds = [old for old in earlier if old.place == place]
        for old, mine in _divided(strategy, named, indices, olds):
            names = [named.names[i] for i in mine]
            part = make(strategy, names, [named.params[i] for i in mine], mine)
            part.first, part.last = place[2] == 0, last
            if old is not None:
                part.take_over(old.memory, old.groups)
            found.setdefault(place, []).append(part)
    return found


def check_same(named: Named, assigned: Assigned, saved: Sequence[PartState]) -> None:
    """`UsageError` unless a saved state is about these strategies and parameters."""
    wanted = {place: (strategy, indices) for place, strategy, _, indices in _tasks(assigned)}
    mine = [str(strategy) for strategy, _ in wanted.values()]
    theirs = list({state.place: state.strategy for state in saved}.values())
    places = {place: str(strategy) for place, (strategy, _) in wanted.items()}
    if any(places.get(state.place) != state.strategy for state in saved) or len(mine) != len(
        theirs
    ):
        raise UsageError(
            f"the state is of {', '.join(theirs)}, but this clipper has {', '.join(mine)}"
        )
    for place, (strategy, indices) in wanted.items():
        shapes = {named.names[i]: tuple(named.params[i].shape) for i in indices}
        known: dict[str, tuple[int, ...]] = {}
        for state in saved:
            if state.place == place:
                known |= state.shapes
        _check_parameters(str(strategy), known, shapes)


def _check_parameters(
    strategy: str, known: dict[str, tuple[int, ...]], shapes: dict[str, tuple[int, ...]]
) -> None:
    for name in [*known, *shapes]:
        if known.get(name) == shapes.get(name):
            continue
        if name not in shapes:
            said = f"is about {name}, which this clipper does not have there"
        elif name not in known:
            said = f"knows nothing of {name}"
        else:
            said = f"is about {name} of the shape {known[name]}, which is {shapes[name]} here"
        raise UsageError(f"the state of {strategy} {said}: it belongs to other parameters")


def _tasks(assigned: Assigned) -> Iterator[tuple[Place, Strategy, bool, list[int]]]:
    """Each strategy with its place, whether it is the last of its side, and its parameters."""
    for pattern, (strategies, indices) in enumerate(assigned):
        if not indices:
            continue
        for side, mine in _by_side(strategies).items():
            for depth, strategy in enumerate(mine):
                yield (pattern, side, depth), strategy, depth == len(mine) - 1, indices


def _by_side(strategies: tuple[Strategy, ...]) -> dict[str, tuple[Strategy, ...]]:
    """A chain's strategies by what they work on; gradients are always checked."""
    sides = {side: tuple(s for s in strategies if s.side == side) for side in SIDES}
    if len(sides["sample"]) > 1:
        raise UsageError("one strategy may clip single examples, but this chain has several")
    return {**sides, "gradient": sides["gradient"] or resolve("none")}


def _divided(
    strategy: Strategy, named: Named, indices: list[int], olds: Sequence[PartState]
) -> list[tuple[PartState | None, list[int]]]:
    """The parameters of one strategy, by the earlier part that knows their groups."""
    if not olds:
        return [(None, indices)]
    owners = {
        _share(strategy, name, shape): old for old in olds for name, shape in old.shapes.items()
    }
    mine: dict[int, list[int]] = {id(old): [] for old in olds}
    new: list[int] = []
    for i in indices:
        owner = owners.get(_share(strategy, named.names[i], tuple(named.params[i].shape)))
        (new if owner is None else mine[id(owner)]).append(i)
    divided: list[tuple[PartState | None, list[int]]] = [(old, mine[id(old)]) for old in olds]
    return [each for each in [*divided, (None, new)] if each[1]]


def _share(strategy: Strategy, name: str, shape: tuple[int, ...]) -> object:
    """What parameters have in common that must be in one part."""
    if strategy.scope == "global":
        return "all"
    if strategy.scope == "layer":
        return layer_of(name)
    return name, shape
