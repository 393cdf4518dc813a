"""Survey: watch a training's gradient norms, and learn which thresholds would clip how often."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gclip.clipping.dtensor import align, group, is_sharded, refuse_flat
from gclip.clipping.gradients import gradients
from gclip.clipping.group_layout import check_layers
from gclip.clipping.hyperparameters import OptimizerHyperparameters
from gclip.clipping.parameter_sources import differing, source_of
from gclip.clipping.parameters import Parameters
from gclip.clipping.sparse import stored
from gclip.clipping.units import UnitDims, axes
from gclip.core.registry import get, names, parse
from gclip.core.strategy import SCOPES, Chain, Strategy, Transform, measured_order
from gclip.errors import UsageError
from gclip.survey.norm_log import FEWEST_STEPS, NormLog, Step, Watched
from gclip.survey.suggest import suggest
from gclip.survey.suggestions import NOTES, Suggestions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MEMORY = 64 << 20  # bytes

Key = tuple[str, float, bool]


class Survey:
    """Watches gradient norms per scope in a training loop, and suggests thresholds by them.

    >>> import torch
    >>> import gclip
    >>> _ = torch.manual_seed(0)
    >>> model = torch.nn.Linear(4, 1)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    >>> survey = gclip.Survey(model, optimizer)
    >>> for _ in range(100):  # a few hundred steps, without clipping
    ...     model(torch.randn(16, 4)).square().mean().backward()
    ...     survey.watch()
    ...     optimizer.step()
    ...     optimizer.zero_grad()
    >>> suggestions = survey.suggest(clip_rate=0.1)  # print it: a table
    >>> suggestions["norm"].limited_rate  # of steps, with suggestions["norm"].spelling
    0.1

    The norms watched are replayed through each strategy, step by step with its memory. A replay
    cannot know that clipping would have changed the steps, and with them the norms that follow:
    what it suggests is a start for tuning. Steps with gradients that are not finite are counted and
    left out.

    Nothing waits for a GPU before `suggest` is called. Memory is bounded: of a long training, or
    of a model with very many units, every second step is kept, or every fourth, and so on, and the
    result says so. Of a tensor with more than 65,536 elements, that many evenly spaced ones are
    counted by size, which is how clamps are judged.

    Where parameters are spread over processes (``fully_shard``, tensor parallelism), every process
    watches, and all come to the same norms and suggestions.

    Args:
        parameters: a module, its ``named_parameters()`` or its ``parameters()`` (which have no
            names, so that the scope ``layer`` is left out).
        optimizer: for strategies that read the learning rate.
        strategies: spellings or strategies to suggest thresholds for; settings in them are kept.
            All registered ones by default.
        memory: how many bytes the norms may take.
        unit_dims: as in `gclip.Clipper`.

    Raises:
        UsageError: no parameters, an unknown strategy, or a chain.
    """

    def __init__(
        self,
        parameters: Parameters,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        strategies: Iterable[str | Strategy] | None = None,
        memory: int = MEMORY,
        unit_dims: UnitDims | None = None,
    ) -> None:
        self._source = source_of(parameters)
        self._first_read = named = self._source.read()
        refuse_flat(named.params)
        self.names, self.params = named.names, list(named.params)
        self._named = named.have_names
        self._rates = (
            None if optimizer is None else OptimizerHyperparameters(optimizer, self.params)
        )
        self._memory = memory
        self._chosen = None if strategies is None else tuple(_one(each) for each in strategies)
        self._logs: dict[Key, NormLog] = {}
        keys = [_key(scope) for scope in SCOPES]
        keys += [_key_of(each) for each in self.strategies if not isinstance(each, Transform)]
        unit_axes = axes(self.names, self.params, parameters, unit_dims)
        for scope, order, counted in dict.fromkeys(keys):
            if scope != "layer" or self._named:
                groups = group(self.names, self.params, scope, unit_axes)
                elements = group(self.names, self.params, "element", unit_axes) if counted else None
                self._logs[scope, order, counted] = NormLog(groups, order, elements=elements)
        self._finite: Tensor | None = None  # how many steps were, counted on the device
        self._last: dict[str, list[float | Tensor]] | None = None
        self.steps = 0

    def __len__(self) -> int:
        return self.steps

    @torch.no_grad()
    def watch(self, finite: Tensor | None = None) -> None:
        """Note this step's gradients. Call it after ``backward()``, once an optimizer step.

        With a GradScaler, after ``unscale_``; where something clips already, before that.

        Args:
            finite: bool ``(1,)``: False leaves the step out, where its gradients were not finite
                and have been set to zero since (``clipper.report.finite``).

        Raises:
            UsageError: no parameter has a gradient, or the model has other parameters than when
                the survey began.
        """
        if self._source.changed() and (other := differing(self._first_read, self._source.read())):
            raise UsageError(
                f"the model has other parameters than when this survey began ({other[0]} and "
                f"{len(other) - 1} more): begin another survey"
                if other[1:]
                else f"{other[0]} is not the parameter that it was when this survey began: begin "
                "another survey"
            )
        if any(map(is_sharded, self.params)):
            align(self.params)
        grads = gradients(self.params)
        present = tuple(grad is not None for grad in grads)
        device = next((g.device for g in grads if g is not None), None)
        if device is None:
            raise UsageError(
                "no parameter has a gradient: call survey.watch() after backward() and before "
                "zero_grad()"
            )
        rows, dense = _rows_and_dense(grads)
        total = self._logs[_key("global")].groups.norms(rows, math.inf, device)
        is_finite = torch.isfinite(total)
        if finite is not None:
            is_finite = is_finite & finite.to(device).view(1)
        self._finite = (
            is_finite.long() if self._finite is None else self._finite.to(device) + is_finite
        )
        trained = tuple(p.requires_grad for p in self.params)
        step = Step(
            self.steps, is_finite, None if all(present) else present, self._rates_now(),
            None if all(trained) else trained,
        )  # fmt: skip
        weights = [p.detach() if p.requires_grad else None for p in self.params]
        for log in self._logs.values():
            if log.wants(self.steps):
                log.add(step, dense if log.groups.scope == "unit" else rows, weights)
        self.steps += 1
        self._fit()

    @property
    def strategies(self) -> tuple[Strategy, ...]:
        """Those that thresholds are suggested for."""
        if self._chosen is not None:
            return self._chosen
        return tuple(get(name)() for name in names())

    @property
    def scopes(self) -> tuple[str, ...]:
        """The scopes whose norms are watched; without ``layer`` where parameters have no names."""
        return tuple(scope for scope in SCOPES if scope != "layer" or self._named)

    @property
    def finite_steps(self) -> int:
        """How many steps had finite gradients; waits for a GPU."""
        return 0 if self._finite is None else int(self._finite)

    def suggest(
        self, clip_rate: float = 0.1, strategies: Iterable[str | Strategy] | None = None
    ) -> Suggestions:
        """A starting threshold for each strategy, found by replaying the norms; a printable table.

        Args:
            clip_rate: the share of steps whose total norm is to shrink by more than 1 %.
            strategies: others than those that the survey was made for.

        Raises:
            UsageError: nothing was watched, or `clip_rate` is not between 0 and 1.
        """
        return pooled([self], clip_rate, strategies)

    def watched(self, scope: str, order: float = 2.0) -> Watched:
        """The norms of the finite steps, ``(steps, groups)``, on the host.

        Args:
            scope: ``element`` for each tensor's largest element.
            order: other norms than the L2 norm are there where a strategy of the survey has them.
        """
        order = math.inf if scope == "element" else order
        logs = [log for (s, o, _), log in self._logs.items() if (s, o) == (scope, order)]
        if not logs:
            watched = ", ".join(dict.fromkeys(s for s, o, _ in self._logs if o == order))
            raise UsageError(f"the {order:g}-norm per {scope} was not watched (there: {watched})")
        return logs[0].watched()

    def watched_for(self, strategy: Strategy) -> Watched:
        """The norms that a strategy's limit is held against.

        Raises:
            UsageError: they were not watched.
        """
        key = _key_of(strategy)
        if key not in self._logs:
            if key[0] == "layer":
                check_layers(self.names, self._named)
            raise UsageError(
                f"its norm (scope {key[0]}, order {key[1]:g}) was not watched; name it beforehand: "
                f"gclip.Survey(model, strategies=['{strategy}'])"
            )
        return self._logs[key].watched()

    def figure(self, suggestions: Suggestions | None = None) -> Figure:
        """How the norms of each scope are spread, and where the suggested limits lie.

        Save it with ``gclip.figures.save(figure, "survey.svg")``.
        """
        return draw_surveys([self], suggestions or self.suggest())

    # -- inside ------------------------------------------------------------------------------

    def _rates_now(self) -> dict[str, list[float | Tensor]] | None:
        """The learning rates and weight decays now; where nothing changed, the very last ones."""
        if self._rates is None:
            return None
        # A learning rate that is a tensor changes in place: one copy of each is kept.
        now: dict[str, list[float | Tensor]] = {}
        for key in ("lr", "weight_decay"):
            each = self._rates.each(key)
            copies = {id(v): v.detach().clone() for v in each if isinstance(v, Tensor)}
            now[key] = [copies[id(v)] if isinstance(v, Tensor) else float(v) for v in each]
        flat = [value for each in now.values() for value in each]
        if any(isinstance(value, Tensor) for value in flat) or now != self._last:
            self._last = now
        return self._last

    def _fit(self) -> None:
        """Thin the largest log until all fit into memory."""
        while 4 * sum(log.floats for log in self._logs.values()) > self._memory:
            largest = max(self._logs.values(), key=lambda log: log.floats)
            if len(largest) < FEWEST_STEPS:
                return
            largest.thin()


def pooled(
    surveys: Sequence[Survey],
    clip_rate: float = 0.1,
    strategies: Iterable[str | Strategy] | None = None,
) -> Suggestions:
    """As `Survey.suggest`, by the steps of several runs: each is replayed by itself.

    Raises:
        UsageError: nothing was watched, or `clip_rate` is not between 0 and 1.
    """
    steps, finite = sum(s.steps for s in surveys), sum(s.finite_steps for s in surveys)
    if not steps:
        raise UsageError("nothing was watched yet: call survey.watch() after each backward()")
    if not finite:
        raise UsageError(f"gradients were not finite in all {steps} steps, so there is no norm")
    watched: dict[Key, list[Watched]] = {}

    def find(strategy: Strategy) -> list[Watched]:
        key = _key_of(strategy)
        if key not in watched:
            watched[key] = [survey.watched_for(strategy) for survey in surveys]
        return watched[key]

    wanted = surveys[0].strategies if strategies is None else [_one(s) for s in strategies]
    rows = suggest(wanted, find, clip_rate)
    every = {each[0].groups.scope: max(w.every for w in each) for each in watched.values()}
    thinned = [f"{scope}: every {_nth(n)} step" for scope, n in every.items() if n > 1]
    notes = list(NOTES)
    if thinned:
        notes.append(f"Not all steps were kept, to save memory ({', '.join(thinned)}).")
    return Suggestions(
        rows=rows, clip_rate=clip_rate, steps=finite, left_out=steps - finite, notes=tuple(notes)
    )


def draw_surveys(surveys: Sequence[Survey], suggestions: Suggestions, setting: str = "") -> Figure:
    """The figure of the steps of several runs; `setting` says of what, under the title."""
    from gclip.figures import draw_survey

    norms = {}
    for scope in SCOPES:
        runs = [s.watched(scope) for s in surveys if scope in s.scopes]
        if runs:
            norms[scope] = torch.cat([run.norm.flatten() for run in runs]).numpy()
    figure: Figure = draw_survey(norms, suggestions, setting)
    return figure


def _nth(number: int) -> str:
    return "2nd" if number == 2 else f"{number}th"


def _one(strategy: str | Strategy) -> Strategy:
    parsed = parse(strategy) if isinstance(strategy, str) else strategy
    if isinstance(parsed, Chain):
        raise UsageError(f"a survey looks at one strategy at a time, not at a chain: {parsed}")
    if not isinstance(parsed, Strategy):
        raise UsageError(f"a strategy is a spelling or a gclip.Strategy, but got {strategy!r}")
    return parsed


def _key(scope: str) -> Key:
    return (scope, math.inf, True) if scope == "element" else (scope, 2.0, False)


def _key_of(strategy: Strategy) -> Key:
    return strategy.scope, measured_order(strategy), strategy.clamps


def _rows_and_dense(
    grads: list[Tensor | None],
) -> tuple[list[Tensor | None], list[Tensor | None]]:
    """The gradients with only the rows that a sparse one has, and with all its rows."""
    if not any(grad is not None and grad.is_sparse for grad in grads):
        return grads, grads
    coalesced = [g.coalesce() if g is not None and g.is_sparse else g for g in grads]
    rows = [None if g is None else stored(g) for g in coalesced]
    dense = [g.to_dense() if g is not None and g.is_sparse else g for g in coalesced]
    return rows, dense
