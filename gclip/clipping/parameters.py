"""Which parameters a clipper takes, and which strategy each of them gets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from gclip.clipping.patterns import matches, refuse_unmatched
from gclip.core.registry import parse
from gclip.core.strategy import Chain, Strategy
from gclip.errors import UsageError

Parameters: TypeAlias = nn.Module | Iterable[Tensor] | Iterable[tuple[str, Tensor]]
Spec: TypeAlias = Strategy | Chain | str | Mapping[str, "Strategy | Chain | str"]
Assigned: TypeAlias = list[tuple[tuple[Strategy, ...], list[int]]]
"""For each pattern its strategies and the indices of its parameters."""


@dataclass(frozen=True)
class Named:
    """Parameters with their names, each once.

    Attributes:
        names: without what wrappers put into them (see `plain_names`), so that patterns and saved
            states mean the same with and without ``torch.compile`` or DDP.
        given: as they were given.
        have_names: False where they are numbers, because parameters came without names.
    """

    names: tuple[str, ...]
    given: tuple[str, ...]
    params: tuple[Tensor, ...]
    have_names: bool


def collect(parameters: Parameters) -> Named:
    """The parameters of a module, of ``named_parameters()`` or of ``parameters()``.

    One that is listed twice counts once. Parameters without names are called 0, 1, 2, ….

    Raises:
        UsageError: nothing to clip (a generator that was read before, say), no tensors, or
            parameters of a lazy module that has not seen its first batch.
    """
    if isinstance(parameters, nn.Module):
        entries: list[object] = list(parameters.named_parameters())
    elif isinstance(parameters, Tensor):
        entries = [parameters]
    elif isinstance(parameters, Iterable):
        entries = list(parameters)
    else:
        raise UsageError(f"{_EXPECTED}, but got {type(parameters).__name__}")
    if not entries:
        raise UsageError(
            "there are no parameters to clip: the model has none, or the generator "
            "that was passed had already been read"
        )
    names, params, seen = [], [], set()
    have_names = True
    for index, entry in enumerate(entries):
        if isinstance(entry, tuple) and len(entry) == 2 and isinstance(entry[0], str):
            name, param = entry
        else:
            name, param, have_names = str(index), entry, False
        if not isinstance(param, Tensor):
            raise UsageError(f"{_EXPECTED}, but entry {index} is {type(param).__name__}")
        if id(param) not in seen:
            seen.add(id(param))
            names.append(name)
            params.append(param)
    lazy = [name for name, param in zip(names, params, strict=True) if is_lazy(param)]
    if lazy:
        raise UsageError(
            f"{', '.join(lazy[:3])} of a lazy module has no shape yet: pass one batch through the "
            "model before clipping is set up"
        )
    return Named(plain_names(names), tuple(names), tuple(params), have_names)


_WRAPPERS = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}


def plain_names(names: Sequence[str]) -> tuple[str, ...]:
    """Parameters' names without the parts that wrappers add.

    ``torch.compile`` adds ``_orig_mod``, activation checkpointing ``_checkpoint_wrapped_module``
    wherever they wrap; DataParallel and DDP put ``module.`` before every name.
    """
    plain = [".".join(p for p in name.split(".") if p not in _WRAPPERS) for name in names]
    while plain and all(name.startswith("module.") for name in plain):
        plain = [name.removeprefix("module.") for name in plain]
    return tuple(plain) if len(set(plain)) == len(names) else tuple(names)


_EXPECTED = "a Clipper takes a model, its named_parameters() or its parameters()"


def resolve(strategy: Strategy | Chain | str) -> tuple[Strategy, ...]:
    """The strategies to apply in order."""
    resolved = parse(strategy) if isinstance(strategy, str) else strategy
    if isinstance(resolved, Chain):
        return resolved.strategies
    if isinstance(resolved, Strategy):
        return (resolved,)
    raise UsageError(
        f"a strategy is a spelling like 'norm(max_norm=1)', a gclip.Strategy or a chain, "
        f"but got {strategy!r}"
    )


def assign(
    names: Sequence[str],
    strategy: Spec,
    exclude: Sequence[str],
    *,
    given: Sequence[str] | None = None,
    grown: bool = False,
) -> Assigned:
    """Which strategies apply to which parameters (by index); the first matching pattern decides.

    Excluded parameters get ``none``: not clipped, though still checked for finite gradients.

    Args:
        given: the names as a wrapper shows them, which patterns may be written for too.
        grown: whether the parameters are no longer those that the patterns were first held to, so
            that one may match nothing any more.

    Returns:
        For each pattern in order its strategies and the indices of its parameters, which may be
        none.

    Raises:
        UsageError: a pattern that matches no parameter, or a parameter that no pattern matches.
    """
    both = list(zip(names, names if given is None else given, strict=True))
    if isinstance(exclude, str):
        exclude = [exclude]
    rules: list[tuple[str, tuple[Strategy, ...]]] = [(p, resolve("none")) for p in exclude]
    if isinstance(strategy, Mapping):
        rules += [(p, resolve(s)) for p, s in strategy.items()]
        if not strategy:
            raise UsageError("the mapping of patterns to strategies is empty; add '*': 'norm'")
    else:
        rules.append(("*", resolve(strategy)))
    for pattern, _ in rules:
        if not grown and pattern != "*" and not any(matches(each, pattern) for each in both):
            layers = sorted({f"{name.rpartition('.')[0]}.*" for name in names if "." in name})
            refuse_unmatched(pattern, names, others=layers)
    indices: list[list[int]] = [[] for _ in rules]
    for i, name in enumerate(names):
        for rule, (pattern, _) in enumerate(rules):
            if matches(both[i], pattern):
                indices[rule].append(i)
                break
        else:
            raise UsageError(
                f"no pattern matches the parameter {name!r}; end the mapping with '*': 'none' "
                "to leave the rest unclipped"
            )
    return [(resolved, own) for (_, resolved), own in zip(rules, indices, strict=True)]
