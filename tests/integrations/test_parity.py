"""The parity table of ``docs/in-your-loop.md``: each library's equation in float64 NumPy, which
shares nothing with gclip, beside our spelling, on recorded gradients."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch

import gclip
from tests.snippets import ROOT

Array = npt.NDArray[np.float64]
Arrays = list[Array]

# Two tensors and a vector; recorded once, rounded.
WEIGHTS: Arrays = [
    np.array([[0.61, -1.2, 0.05], [0.0, 0.002, 0.0]]),
    np.array([[2.0, -0.4], [0.3, 0.7]]),
    np.array([0.1, -0.2]),
]
GRADS: Arrays = [
    np.array([[0.31, -2.4, 0.08], [1.7, -0.02, 0.55]]),
    np.array([[0.012, -0.003], [0.04, 0.021]]),
    np.array([-3.1, 0.9]),
]


def total(grads: Arrays, p: float = 2.0) -> float:
    flat = np.concatenate([g.ravel() for g in grads])
    return float(np.linalg.norm(flat, p))


def elements(c: float, low: float | None = None) -> Arrays:
    return [np.clip(g, -c if low is None else low, c) for g in GRADS]


def together(c: float, p: float = 2.0, eps: float = 0.0) -> Arrays:
    """One norm of all, g · min(1, c / (n + ε))."""
    return [g * min(1.0, c / (total(GRADS, p) + eps)) for g in GRADS]


def each(size: Callable[[Array], float], c: float) -> Arrays:
    """Each tensor by its own size, g · c / max(size, c)."""
    return [g * c / max(size(g), c) for g in GRADS]


def adaptive(c: float) -> Arrays:
    """‖g_u‖ ≤ c · max(‖w_u‖, 10⁻³), a unit one output; a vector is one unit."""
    clipped = []
    for g, w in zip(GRADS, WEIGHTS, strict=True):
        axis = 1 if g.ndim > 1 else 0
        norm = np.sqrt((g * g).sum(axis, keepdims=True))
        limit = c * np.maximum(np.sqrt((w * w).sum(axis, keepdims=True)), 1e-3)
        clipped.append(np.where(norm > limit, g * limit / norm, g))
    return clipped


def deepspeed(c: float) -> Arrays:
    """With a scale of 1: where (n/1 + 10⁻⁶)/c > 1, g is divided by it."""
    factor = (total(GRADS) + 1e-6) / c
    return [g / factor if factor > 1 else g for g in GRADS]


def megatron(c: float) -> Arrays:
    factor = c / (total(GRADS) + 1.0e-6)
    return [g * factor if factor < 1.0 else g for g in GRADS]


EQUATIONS: dict[str, Callable[[float], Arrays]] = {
    "TensorFlow `clip_by_value(g, -c, c)`, Keras `clipvalue=c`": elements,
    "TensorFlow `clip_by_value(g, low, c)`": lambda c: elements(c, -0.01),
    "TensorFlow `clip_by_norm(g, c)`, Keras `clipnorm=c`": lambda c: each(
        lambda g: float(np.sqrt((g * g).sum())), c
    ),
    "TensorFlow `clip_by_global_norm(gs, c)`, Keras `global_clipnorm=c`": lambda c: [
        g * c / max(total(GRADS), c) for g in GRADS
    ],
    "TensorFlow 1 `clip_by_average_norm(g, c)`": lambda c: each(
        lambda g: float(np.sqrt((g * g).sum()) / g.size), c
    ),
    "optax `clip(c)`": elements,
    "optax `clip_by_global_norm(c)`": lambda c: [
        g if total(GRADS) < c else g / total(GRADS) * c for g in GRADS
    ],
    "optax `clip_by_block_rms(c)`": lambda c: [
        g / max(1.0, float(np.sqrt((g * g).mean())) / c) for g in GRADS
    ],
    "optax `adaptive_grad_clip(c)`": adaptive,
    "optax `normalize_by_update_norm(c)`": lambda c: [c * g / (total(GRADS) + 1e-6) for g in GRADS],
    "torch `clip_grad_norm_(p, c)`": lambda c: together(c, eps=1e-6),
    "torch `clip_grad_norm_(p, c, norm_type=inf)`": lambda c: together(c, np.inf, 1e-6),
    "torch `clip_grad_norm_(p, c, norm_type=1)`": lambda c: together(c, 1.0, 1e-6),
    "torch `clip_grad_value_(p, c)`": elements,
    'DeepSpeed `"gradient_clipping": c`': deepspeed,
    "Megatron-LM `--clip-grad c`": megatron,
    "Lightning `gradient_clip_val=c`": lambda c: together(c, eps=1e-6),
    'Lightning `gradient_clip_val=c, gradient_clip_algorithm="value"`': elements,
    "Transformers `max_grad_norm=c`": lambda c: together(c, eps=1e-6),
    "Accelerate `clip_grad_norm_(p, c)`": lambda c: together(c, eps=1e-6),
    "Accelerate `clip_grad_value_(p, c)`": elements,
}


def rows() -> dict[str, str]:
    """The table: theirs, ours."""
    text = (ROOT / "docs" / "in-your-loop.md").read_text(encoding="utf-8")
    table = text.partition("<!-- parity")[2]
    return dict(re.findall(r"^\| (.+?) \| `(.+?)` \|$", table, re.MULTILINE))


def test_every_row_has_an_equation() -> None:
    assert list(rows()) == list(EQUATIONS)


@pytest.mark.parametrize("bound", [0.05, 0.7, 50.0])
@pytest.mark.parametrize("theirs", EQUATIONS)
def test_the_spelling_computes_what_the_library_does(theirs: str, bound: float) -> None:
    spelling = re.sub(r"=c\b", f"={bound}", rows()[theirs]).replace("=low", "=-0.01")
    params = [torch.nn.Parameter(torch.from_numpy(w.copy())) for w in WEIGHTS]
    for param, grad in zip(params, GRADS, strict=True):
        param.grad = torch.from_numpy(grad.copy())
    gclip.Clipper(params, spelling).step()
    for param, want in zip(params, EQUATIONS[theirs](bound), strict=True):
        assert param.grad is not None
        np.testing.assert_allclose(param.grad.numpy(), want, rtol=3e-5, atol=1e-12)
