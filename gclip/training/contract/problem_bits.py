"""Promises about bits: of the seed alone, resumed from a file, of nothing global."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from gclip.training.contract.bits import bits, changed, difference
from gclip.training.contract.problem_subject import CONTRACT, ProblemSubject
from gclip.training.contract.world import random_states, world


@CONTRACT.promise("the same seed gives the same bits, whatever global random states there are")
def same_seed(subject: ProblemSubject) -> Iterator[str]:
    """Torch's, NumPy's and Python's global generators hold something else in the second run."""
    than = "with other global random states"
    found = difference(subject.run(), subject.run(program=1), than)
    if found is not None:
        yield f"{found}; draw from state.generator(role)"


@CONTRACT.promise("another seed gives another run")
def other_seed(subject: ProblemSubject) -> Iterator[str]:
    """At least one step's loss differs."""
    first, other = subject.run(), subject.run(seed=subject.seed + 1)
    if first.steps["loss"].tobytes() == other.steps["loss"].tobytes():
        yield (
            f"all {len(first.steps['loss'])} losses are those of seed {subject.seed}; what is "
            "random comes from state.generator(role), and weights from torch's own generator"
        )


@CONTRACT.promise("a run that was stopped after an epoch goes on, from a file, to the same bits")
def resumed(subject: ProblemSubject) -> Iterator[str]:
    """The second half is made by another run object, from what the checkpoint holds."""
    config = subject.config()
    with tempfile.TemporaryDirectory() as folder, world(0):
        file = Path(folder) / "checkpoint"
        subject.train(config, checkpoint=file, on_progress=lambda p: p.epoch < 1)
        again = subject.train(config, checkpoint=file)
    found = difference(again, subject.run(), "without a stop")
    if found is not None:
        yield f"{found}; what changes while it trains belongs into state.keep"


@CONTRACT.promise("a run leaves the global random states alone")
def global_state(subject: ProblemSubject) -> Iterator[str]:
    """Loading the data, too."""
    with world(2):
        before = bits(random_states())
        subject.load()
        subject.train(subject.config())
        after = bits(random_states())
    for name in dict.fromkeys(path.partition("[")[0] for path in changed(before, after)):
        yield f"{name} is another after a run; draw from state.generator(role)"


@CONTRACT.promise("data() gives the same each time, and no run writes to it")
def data_kept(subject: ProblemSubject) -> Iterator[str]:
    """Compared leaf by leaf."""
    with world(0):
        first = subject.data
    with world(1):
        again = subject.load()
    for path in changed(subject.bits_of_data, bits(again)):
        yield f"data() called again gives another {path}"
    subject.run()
    for path in changed(subject.bits_of_data, bits(first)):
        yield f"a run writes to the data: {path} is another afterwards"
