"""Promises about a model's weights: of the seed alone, saved and loaded, nothing global."""

from __future__ import annotations

import io
from collections.abc import Iterator

import torch

from gclip.training import models
from gclip.training.contract.bits import bits, changed
from gclip.training.contract.model_subject import CONTRACT, OUTPUTS, ModelSubject
from gclip.training.contract.world import random_states, world


@CONTRACT.promise("the same seed gives the same weights, whatever global random states there are")
def same_seed(subject: ModelSubject) -> Iterator[str]:
    """And another seed others."""
    inputs = subject.inputs[0]
    first, other = (bits(subject.model(inputs, seed).state_dict()) for seed in (None, 12345))
    with world(1):
        again = bits(models.build(subject.spelling, inputs, OUTPUTS, subject.seed).state_dict())
    for name in changed(first, again):
        yield f"{name} is another with other global random states; draw from torch's own generator"
    if first == other:
        yield f"the weights of the seeds {subject.seed} and 12345 are the same"


@CONTRACT.promise("building it leaves the caller's random states alone")
def global_state(subject: ModelSubject) -> Iterator[str]:
    """Torch's, NumPy's and Python's."""
    with world(2):
        before = bits(random_states())
        models.build(subject.spelling, subject.inputs[0], OUTPUTS, subject.seed)
        after = bits(random_states())
    for name in dict.fromkeys(path.partition("[")[0] for path in changed(before, after)):
        yield f"{name} is another when the model is built"


@CONTRACT.promise("its state, saved and loaded into another, makes that the same model")
def saved(subject: ModelSubject) -> Iterator[str]:
    """After a pass in training, which buffers may remember; loaded with ``weights_only=True``."""
    for inputs in subject.inputs:
        model, examples = subject.model(inputs), subject.examples(inputs)
        with world(0), torch.no_grad():
            model.train()(examples)
        buffer = io.BytesIO()
        torch.save(model.state_dict(), buffer)
        buffer.seek(0)
        other = subject.model(inputs, 12345)
        other.load_state_dict(torch.load(buffer, weights_only=True))
        with world(0), torch.no_grad():
            expected, found = model.eval()(examples), other.eval()(examples)
        if not torch.equal(expected, found):
            off = float((expected - found).abs().max())
            yield (
                f"inputs {inputs}: after loading, an output is off by {off:g}; what a model keeps "
                "is a parameter or a buffer"
            )
