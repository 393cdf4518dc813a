"""``gclip bench strategies``: one call of each strategy beside `norm` of the same scope.

Both are called in alternation on the same gradients, so that whatever else the machine does hits
both. Most of the gradients are alike and every fourth is a spike, at which also those strategies
act that learn what is usual; where a strategy acts often enough, only those calls count, so that
none looks cheap because it had nothing to do. `norm` clips at every call.

On the side ``update`` a call is a whole SGD step with the clipper attached, beside the same with
``norm(side=update)``. On the side ``sample`` it is a forward and backward pass with one gradient an
example, beside the same without clipping.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gclip.bench.gradients import give_gradients
from gclip.clipping.clipper import Clipper
from gclip.clipping.hooks import attach
from gclip.clipping.report import ClipReport, clipped_or_skipped
from gclip.core.registry import create, get, names
from gclip.core.strategy import Strategy, Transform
from gclip.errors import UsageError
from gclip.training.models import build

Call = Callable[[], Any]

TARGET = 1.5
"""No strategy that looks at norms alone should cost more than this many times `norm`."""

ROUND = 4  # calls, of which the last has a spike
WARM = 128  # calls before the measurement: the longest published warm-up is over by then
ENOUGH = 0.1  # the share of calls with something clipped above which the others do not count
EXAMPLES = 32


def rows(
    chosen: Iterable[str] = (),
    *,
    model: str = "resnet18",
    seconds: float = 2.0,
    warm: int = WARM,
    progress: Callable[[str], None] = lambda _: None,
) -> list[dict[str, Any]]:
    """One row a strategy, on the side that it works on by default.

    Each row has `case`, `peer`, `speedup` (the peer's median time over ours), `cost` (its
    inverse), both medians in microseconds, the share of our calls in which something was
    `clipped`, and `norms_only`: False for a `Transform`, which reads every element. A strategy
    that could not be measured has the `reason` instead of numbers.

    Args:
        chosen: names; all registered strategies by default.
        model: the net, by its name; examples are clipped on LeNet.
        seconds: how long each row measures, about.
        warm: calls before that, in twice the time at most.
        progress: told the name of what is measured next.
    """
    strategies = [get(name)() for name in tuple(chosen) or names()]
    measured = []
    for strategy in strategies:
        progress(strategy.name)
        where = "lenet" if strategy.side == "sample" else model
        row: dict[str, Any] = {"case": f"{where} {strategy.name}", "strategy": strategy.name}
        try:
            pair = _PAIRS[strategy.side](strategy, build(where, seed=0))
            row |= {"peer": pair.peer, **_measure(pair, seconds, warm)}
        except UsageError as error:
            row["reason"] = str(error)
        row["norms_only"] = not isinstance(strategy, Transform)
        measured.append(row)
    return measured


class Pair(NamedTuple):
    """Two calls to be timed in turns.

    Attributes:
        peer: what the other call is.
        reset: prepares for a call, outside the timed part; given the gradients' scale.
        report: what our last call did.
    """

    peer: str
    ours: Call
    theirs: Call
    reset: Callable[[float], None]
    report: Callable[[], ClipReport | None]


def _on_gradients(strategy: Strategy, net: nn.Module) -> Pair:
    params = list(net.named_parameters())
    reset = give_gradients([p for _, p in params])
    peer = create("norm", scope=strategy.scope, max_norm=1e-4)
    # Whoever reads it has a learning rate.
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    ours = Clipper(params, strategy, optimizer=optimizer)
    return Pair(
        f"norm(scope={strategy.scope})", ours.step, Clipper(params, peer).step, reset,
        lambda: ours.report,
    )  # fmt: skip


def _on_updates(strategy: Strategy, net: nn.Module) -> Pair:
    params = list(net.parameters())
    values: list[Tensor] = [p.detach() for p in params]
    start = [value.clone() for value in values]
    fill = give_gradients(params)

    def reset(scale: float) -> None:
        fill(scale)
        torch._foreach_copy_(values, start)

    def stepper(clipped_by: Strategy) -> tuple[Call, Callable[[], ClipReport | None]]:
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        handle = attach(optimizer, clipped_by, model=net)
        return optimizer.step, lambda: handle.report

    ours, report = stepper(strategy)
    theirs, _ = stepper(create("norm", scope=strategy.scope, side="update", max_norm=1e-4))
    return Pair(f"norm(scope={strategy.scope}, side=update)", ours, theirs, reset, report)


def _by_example(strategy: Strategy, net: nn.Module) -> Pair:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(EXAMPLES, 3, 32, 32, generator=generator)
    labels = torch.randint(10, (EXAMPLES,), generator=generator)
    ours, theirs = Clipper(net, strategy), Clipper(net, create("none", side="sample"))

    def step(clipper: Clipper) -> None:
        clipper.backward(images, labels)
        clipper.step()

    def reset(_: float) -> None:
        net.zero_grad()

    return Pair(
        "none(side=sample)", lambda: step(ours), lambda: step(theirs), reset, lambda: ours.report
    )


_PAIRS: dict[str, Callable[[Strategy, nn.Module], Pair]] = {
    "gradient": _on_gradients,
    "update": _on_updates,
    "sample": _by_example,
}


def _measure(pair: Pair, seconds: float, warm: int) -> dict[str, Any]:
    times: list[tuple[float, float]] = []
    acted: list[bool] = []
    until = time.perf_counter() + 2 * seconds
    for step in range(warm):
        for call in (pair.ours, pair.theirs):
            pair.reset(_scale(step))
            call()
        if time.perf_counter() > until:
            break
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or len(times) < 2 * ROUND:
        step = len(times)
        seconds_taken = [0.0, 0.0]
        # Who comes first changes with every round, not with every call: or ours would always be
        # first at a spike.
        for i in (0, 1) if step // ROUND % 2 else (1, 0):
            pair.reset(_scale(step))
            start = time.perf_counter()
            (pair.ours, pair.theirs)[i]()
            seconds_taken[i] = time.perf_counter() - start
        times.append((seconds_taken[0], seconds_taken[1]))
        acted.append(clipped_or_skipped(pair.report()))
    share = sum(acted) / len(acted)
    if share >= ENOUGH:
        times = [each for each, clipped in zip(times, acted, strict=True) if clipped]
    ours, theirs = (statistics.median(each[i] for each in times) for i in (0, 1))
    return {
        "speedup": theirs / ours, "cost": ours / theirs,
        "ours_us": ours * 1e6, "peer_us": theirs * 1e6, "clipped": share,
    }  # fmt: skip


def _scale(step: int) -> float:
    """Of the gradients at a call. Spikes grow a little, so that none is like the ones before."""
    return 100.0 * 1.002 ** (step // ROUND) if step % ROUND == ROUND - 1 else 1.0


def summary(found: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The rows as ``{strategy: {"cost", "peer", "idle"}}``: what the page of strategies shows.

    `idle` is True for a strategy that clipped too seldom for only those calls to count.
    """
    return {
        row["strategy"]: {
            "cost": round(row["cost"], 2),
            "peer": row["peer"],
            "idle": row["clipped"] < ENOUGH,
        }
        for row in found
        if "cost" in row
    }


def too_slow(found: Iterable[dict[str, Any]]) -> list[str]:
    """The strategies that look at norms alone and cost more than `TARGET` times `norm`."""
    return [r["strategy"] for r in found if r["norms_only"] and r.get("cost", 0) > TARGET]
