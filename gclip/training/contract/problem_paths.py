"""Promises of problems with a data set and a loss: both paths and fleets make the same runs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gclip.testing.applicability import DoesNotApply
from gclip.training.contract.bits import difference
from gclip.training.contract.problem_subject import CONTRACT, ProblemSubject
from gclip.training.contract.world import world
from gclip.training.dataset import Dataset
from gclip.training.fleet.train import train_fleet, unsupported
from gclip.training.supervised import has_fast_path

RTOL, ATOL = 2e-3, 1e-5


@CONTRACT.promise("the general path, one batch after another, gives the fast path's bits")
def general_path(subject: ProblemSubject) -> Iterator[str]:
    """Every loss and norm, and the curve."""
    _with_fast_path(subject)
    with subject.by_hand() as run:
        while run.epoch < run.config.epochs and run.train_epoch(lambda: True):
            run.measure(0.0)
        general = run.result("finished", "", seconds=0.0, environment={})
    fast = subject.run()
    paths = difference(general, fast, "by the fast path")
    # Means over the split are summed in other orders: their last bits are the path's own.
    if paths is not None and not paths.startswith(("curve", "scores")):
        yield f"by the general path {paths}"
    for a, b in zip(general.curve, fast.curve, strict=False):
        for name in ("loss", general.metric.name if general.metric.name in a else "score"):
            if not np.isclose(a[name], b[name], rtol=1e-6, atol=0):
                yield (
                    f"epoch {a['epoch']}: by the general path the {name} measured is "
                    f"{a[name]:.9g}, but {b[name]:.9g} by the fast path"
                )


@CONTRACT.promise("runs of a fleet are what they are alone, within rounding")
def fleet(subject: ProblemSubject) -> Iterator[str]:
    """Two seeds side by side, at a tenth of the usual learning rate."""
    _with_fast_path(subject)
    base = subject.config()
    configs = [base.replace(lr=base.lr / 10, seed=subject.seed + place) for place in range(2)]
    reason = unsupported(configs[0])
    if reason:
        raise DoesNotApply(reason)
    with world(0):
        together = train_fleet(configs, dataset=subject.data, device="cpu", threads=1)
    for config, found in zip(configs, together, strict=True):
        alone = subject.run(lr=config.lr, seed=config.seed)
        a, b = found.steps["loss"], alone.steps["loss"]
        if len(a) != len(b):
            yield f"seed {config.seed} makes {len(a)} steps in a fleet, but {len(b)} alone"
            continue
        off = np.flatnonzero(~np.isclose(a, b, rtol=RTOL, atol=ATOL, equal_nan=True))
        if len(off):
            step = int(off[0])
            yield (
                f"seed {config.seed}, step {step}: the loss is {a[step]:.7g} in a fleet, but "
                f"{b[step]:.7g} alone; is loss(reduction='none') the loss of each example?"
            )


def _with_fast_path(subject: ProblemSubject) -> None:
    if not has_fast_path(subject.problem):
        raise DoesNotApply("it has no fast path: it makes its own batches or losses")
    if not isinstance(subject.data, Dataset):
        raise DoesNotApply("its data is no data set")
