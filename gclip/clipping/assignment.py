"""Which strategy works on which parameters, and its memory by the names of its groups.

Memory belongs to groups, and groups have names. So it can be taken over by name: from a saved
state, whatever order its parameters had, and from the strategies that the clipper had before its
parameters changed. Groups that are new get a bound strategy of their own, whose memory begins now;
nobody's past is mixed with theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from gclip.clipping.bound_strategy import BoundStrategy
from gclip.clipping.group_layout import layer_of
from gclip.clipping.groups import Groups
from gclip.clipping.parameters import Assigned, Named, resolve
from gclip.clipping.record import Record
from gclip.clipping.state import copied
from gclip.core.strategy import SIDES, Strategy
from gclip.errors import UsageError

ChainPosition: TypeAlias = tuple[int, str, int]
"""Which pattern, which side, and how many strategies of the chain act before this one."""


class StrategyState(NamedTuple):
    """What a bound strategy knows, as it is saved and taken over.

    Attributes:
        position: where it stands in its clipper.
        strategy: its spelling.
        groups: the groups' names, in the order in which memory has them.
        shapes: of its parameters, by name.
        memory: as the strategy keeps it; None before the first step.
    """

    position: ChainPosition
    strategy: str
    groups: tuple[str, ...]
    shapes: dict[str, tuple[int, ...]]
    memory: Any

    @classmethod
    def of(
        cls, position: ChainPosition, strategy: Strategy, groups: Groups, memory: Any
    ) -> StrategyState:
        """What a bound strategy knows, its memory copied."""
        shapes = {n: tuple(s) for n, s in zip(groups.names, groups.shapes, strict=True)}
        return cls(position, str(strategy), groups.labels, shapes, copied(memory))

    def saved(self) -> dict[str, Any]:
        """As dicts, lists and tensors."""
        return {
            "place": list(self.position),
            "strategy": self.strategy,
            "groups": list(self.groups),
            "shapes": {name: list(shape) for name, shape in self.shapes.items()},
            "memory": self.memory,
        }

    @classmethod
    def read(cls, saved: Any) -> StrategyState:
        """What `saved` wrote."""
        pattern, side, depth = saved["place"]
        shapes = {name: tuple(shape) for name, shape in saved["shapes"].items()}
        groups = tuple(saved["groups"])
        return cls((pattern, side, depth), saved["strategy"], groups, shapes, saved["memory"])


def saved_state(step: int, parts: Sequence[StrategyState], record: Record) -> dict[str, Any]:
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


def read_state(state: Mapping[str, Any]) -> tuple[int, list[StrategyState], dict[str, Any]]:
    """What `saved_state` put together: the step, the parts, and the record's state.

    Raises:
        UsageError: it is something else.
    """
    try:
        (record,) = state["record"]
        return int(state["step"]), [StrategyState.read(each) for each in state["parts"]], record
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(
            "this is not the state of a clipper of this version of gclip: it should be what "
            f"clipper.state_dict() gave ({type(error).__name__}: {error})"
        ) from error


def bind_all(
    named: Named,
    assigned: Assigned,
    bind: Callable[..., BoundStrategy],
    earlier: Sequence[StrategyState] = (),
) -> dict[ChainPosition, list[BoundStrategy]]:
    """The bound strategies for some parameters, in the order in which they act on the gradients.

    Args:
        named: the parameters.
        assigned: for each pattern its strategies and the indices of its parameters.
        bind: makes one of a strategy, names, parameters, their indices, `first` and `last`.
        earlier: those before, whose memory those that work on the same groups take over.

    Returns:
        Of each position in the clipper its bound strategies: several where groups are new.
    """
    bound: dict[ChainPosition, list[BoundStrategy]] = {}
    for position, strategy, last, indices in _tasks(assigned):
        states = [state for state in earlier if state.position == position]
        for state, own in _divided(strategy, named, indices, states):
            names = [named.names[i] for i in own]
            params = [named.params[i] for i in own]
            part = bind(strategy, names, params, own, first=position[2] == 0, last=last)
            if state is not None:
                part.load_memory(state.memory, state.groups)
            bound.setdefault(position, []).append(part)
    return bound


def check_same(named: Named, assigned: Assigned, saved: Sequence[StrategyState]) -> None:
    """`UsageError` unless a saved state is about these strategies and parameters."""
    wanted = {position: (strategy, indices) for position, strategy, _, indices in _tasks(assigned)}
    spellings = {position: str(strategy) for position, (strategy, _) in wanted.items()}
    saved_spellings = list({state.position: state.strategy for state in saved}.values())
    mismatch = any(spellings.get(state.position) != state.strategy for state in saved)
    if mismatch or len(spellings) != len(saved_spellings):
        raise UsageError(
            f"the state is of {', '.join(saved_spellings)}, but this clipper has "
            f"{', '.join(spellings.values())}"
        )
    for position, (strategy, indices) in wanted.items():
        shapes = {named.names[i]: tuple(named.params[i].shape) for i in indices}
        known: dict[str, tuple[int, ...]] = {}
        for state in saved:
            if state.position == position:
                known |= state.shapes
        _check_parameters(str(strategy), known, shapes)


def _check_parameters(
    strategy: str, known: dict[str, tuple[int, ...]], shapes: dict[str, tuple[int, ...]]
) -> None:
    for name in [*known, *shapes]:
        if known.get(name) == shapes.get(name):
            continue
        if name not in shapes:
            problem = f"is about {name}, which this clipper does not have there"
        elif name not in known:
            problem = f"knows nothing of {name}"
        else:
            problem = f"is about {name} of the shape {known[name]}, which is {shapes[name]} here"
        raise UsageError(f"the state of {strategy} {problem}: it belongs to other parameters")


def _tasks(assigned: Assigned) -> Iterator[tuple[ChainPosition, Strategy, bool, list[int]]]:
    """Each strategy with its position, whether it is the last of its side, and its parameters."""
    for pattern, (strategies, indices) in enumerate(assigned):
        if not indices:
            continue
        for side, chain in _by_side(strategies).items():
            for depth, strategy in enumerate(chain):
                yield (pattern, side, depth), strategy, depth == len(chain) - 1, indices


def _by_side(strategies: tuple[Strategy, ...]) -> dict[str, tuple[Strategy, ...]]:
    """A chain's strategies by what they work on; gradients are always checked."""
    sides = {side: tuple(s for s in strategies if s.side == side) for side in SIDES}
    if len(sides["sample"]) > 1:
        raise UsageError("one strategy may clip single examples, but this chain has several")
    return {**sides, "gradient": sides["gradient"] or resolve("none")}


def _divided(
    strategy: Strategy, named: Named, indices: list[int], states: Sequence[StrategyState]
) -> list[tuple[StrategyState | None, list[int]]]:
    """The parameters of one strategy, by the earlier state that knows their groups."""
    if not states:
        return [(None, indices)]
    owners = {
        _inseparable(strategy, name, shape): number
        for number, state in enumerate(states)
        for name, shape in state.shapes.items()
    }
    owned: list[list[int]] = [[] for _ in states]
    new: list[int] = []
    for i in indices:
        owner = owners.get(_inseparable(strategy, named.names[i], tuple(named.params[i].shape)))
        (new if owner is None else owned[owner]).append(i)
    divided = [*zip(states, owned, strict=True), (None, new)]
    return [(state, own) for state, own in divided if own]


def _inseparable(strategy: Strategy, name: str, shape: tuple[int, ...]) -> object:
    """What parameters have in common that must be in one bound strategy."""
    if strategy.scope == "global":
        return "all"
    if strategy.scope == "layer":
        return layer_of(name)
    return name, shape
