"""Promises about what a model says and gives: docs, shapes, batches of any size, layouts."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from gclip.testing.applicability import DoesNotApply
from gclip.training.contract.model_subject import CONTRACT, OUTPUTS, ModelSubject
from gclip.training.contract.world import world


@CONTRACT.promise("its function says what it is")
def documented(subject: ModelSubject) -> Iterator[str]:
    """In a docstring, of which `gclip list --models` shows the first line."""
    if not (subject.builder.__doc__ or "").strip():
        yield f"{subject.builder.__name__} has no docstring"


@CONTRACT.promise("a batch of examples becomes finite float32 numbers, (batch, outputs)")
def shapes(subject: ModelSubject) -> Iterator[str]:
    """For four outputs and for one."""
    for inputs in subject.inputs:
        for outputs in (OUTPUTS, 1):
            model = subject.model(inputs, outputs=outputs).eval()
            found = _apply(model, subject.examples(inputs))
            yield from _wrong(found, (3, outputs), f"inputs {inputs}")


@CONTRACT.promise("a single example and an uneven batch work, in training and in evaluation")
def batches(subject: ModelSubject) -> Iterator[str]:
    """As the last batch of an epoch may be."""
    for inputs in subject.inputs:
        for training in (False, True):
            model = subject.model(inputs).train(training)
            for count in (5, 1, 2):
                where = f"{count} examples of {inputs}, {'training' if training else 'evaluation'}"
                try:
                    found = _apply(model, subject.examples(inputs, count))
                except Exception as error:
                    raise type(error)(f"{where}: {error}") from error
                yield from _wrong(found, (count, OUTPUTS), where)


@CONTRACT.promise("in evaluation an example's outputs depend on nothing but the example")
def evaluates(subject: ModelSubject) -> Iterator[str]:
    """Not on the others of its batch, and not on chance."""
    for inputs in subject.inputs:
        model = subject.model(inputs).eval()
        examples = subject.examples(inputs)
        together, again = _apply(model, examples, 0), _apply(model, examples, 1)
        if not torch.equal(together, again):
            yield f"inputs {inputs}: the same batch twice gives other outputs"
        alone = torch.cat([_apply(model, each[None]) for each in examples])
        if not torch.allclose(alone, together, rtol=1e-3, atol=1e-4):
            off = float((alone - together).abs().max())
            yield f"inputs {inputs}: beside others in a batch an output is off by {off:g}"


@CONTRACT.promise("images laid out channels_last give the same outputs")
def channels_last(subject: ModelSubject) -> Iterator[str]:
    """As the trainer lays them out, the filters with them."""
    images = [inputs for inputs in subject.inputs if len(inputs) == 3]
    if not images:
        raise DoesNotApply("it takes no images")
    for inputs in images:
        examples = subject.examples(inputs)
        plain = _apply(subject.model(inputs).eval(), examples)
        model = subject.model(inputs).eval().to(memory_format=torch.channels_last)
        found = _apply(model, examples.contiguous(memory_format=torch.channels_last))
        if not torch.allclose(found, plain, rtol=1e-3, atol=1e-4):
            off = float((found - plain).abs().max())
            yield f"inputs {inputs}: an output is off by {off:g} in channels_last"


def _apply(model: nn.Module, examples: Tensor, program: int = 0) -> Tensor:
    """The outputs, without gradients."""
    with world(program), torch.no_grad():
        found: Tensor = model(examples)
    return found


def _wrong(found: object, shape: tuple[int, ...], where: str) -> Iterator[str]:
    if not isinstance(found, Tensor):
        yield f"{where}: it gives {type(found).__name__}, not a tensor"
    elif found.shape != shape:
        yield f"{where}: the outputs are {tuple(found.shape)}, not {shape}"
    elif found.dtype != torch.float32:
        yield f"{where}: the outputs are {found.dtype}, not float32"
    elif not bool(torch.isfinite(found).all()):
        yield f"{where}: not all outputs are finite"
