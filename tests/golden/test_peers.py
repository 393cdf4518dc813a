"""Our strategies beside other people's implementations: 200 steps of the same gradients.

Each peer is a function of (weights, gradients) that gives the gradients it would hand to an
optimizer, with whatever memory it keeps. A peer that is not installed is skipped; ``make peers``
installs all of them, and sets ``GCLIP_PEERS`` so that none can be.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

import gclip

LIBRARIES = ("autoclip", "heavyball", "keras", "optax", "pytorch_optimizer", "timm", "torch")
"""The peers: ``strategies/README.md`` names those that tests called ``test_LIBRARY…`` compare."""
STEPS = 200
SHAPES = {"conv.weight": (4, 3, 2, 2), "conv.bias": (4,), "fc.weight": (6, 5), "fc.bias": (6,)}
Tensors = dict[str, Tensor]
Peer = Callable[[Tensors, Tensors], Tensors]


def module(name: str) -> Any:
    """The module of another library; where ``GCLIP_PEERS`` is set it must be there."""
    if os.environ.get("GCLIP_PEERS"):
        return importlib.import_module(name)
    return pytest.importorskip(name)


def draw(seed: int = 0) -> Tensors:
    source = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=source) for name, shape in SHAPES.items()}


def gradients(steps: int = STEPS) -> Iterator[Tensors]:
    """Gradients of very different sizes, by tensor and by step, with spikes in single elements."""
    source = torch.Generator().manual_seed(1)
    for _ in range(steps):
        size = torch.randn((), generator=source).exp()
        grads = {}
        for name, shape in SHAPES.items():
            own = torch.randn((), generator=source).exp()
            spikes = torch.randn(shape, generator=source).mul(1.5).exp()
            grads[name] = size * own * spikes * torch.randn(shape, generator=source)
        yield grads


def compare(strategy: str, peer: Peer, rtol: float = 1e-5) -> None:
    """Run both for 200 steps; raise AssertionError where the gradients they leave differ."""
    weights = draw()
    params = {name: nn.Parameter(w.clone()) for name, w in weights.items()}
    clipper = gclip.Clipper(params.items(), strategy)
    changed = 0
    for step, grads in enumerate(gradients()):
        for name, param in params.items():
            param.grad = grads[name].clone()
        clipper.step()
        want = peer(weights, {name: grad.clone() for name, grad in grads.items()})
        for name, param in params.items():
            assert param.grad is not None
            np.testing.assert_allclose(
                param.grad.numpy(), want[name].numpy(), rtol=rtol, err_msg=f"{name}, step {step}"
            )
            changed += not torch.equal(param.grad, grads[name])
    assert changed > STEPS / 5, "the strategy hardly ever did anything: the test shows nothing"


def in_place(clip: Callable[[list[nn.Parameter]], object]) -> Peer:
    """A peer that changes the ``.grad`` of parameters, which stay the same over all steps."""
    params: dict[str, nn.Parameter] = {}

    def peer(weights: Tensors, grads: Tensors) -> Tensors:
        for name, weight in weights.items():
            params.setdefault(name, nn.Parameter(weight.clone()))
            params[name].grad = grads[name]
        clip(list(params.values()))
        return {name: _there(param.grad) for name, param in params.items()}

    return peer


def _there(grad: Tensor | None) -> Tensor:
    assert grad is not None
    return grad


# -- torch, timm ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategy", "p"),
    [
        ("norm(max_norm=3)", 2.0),
        ("norm(max_norm=3, p=1)", 1.0),
        ("norm(max_norm=3, p=inf)", np.inf),
    ],
)
def test_torch_clip_grad_norm(strategy: str, p: float) -> None:
    # torch adds 1e-6 to the norm before it divides
    compare(strategy, in_place(lambda ps: nn.utils.clip_grad_norm_(ps, 3.0, norm_type=p)))


def test_torch_clip_grad_value() -> None:
    compare(
        "value(clip_value=0.5)", in_place(lambda ps: nn.utils.clip_grad_value_(ps, 0.5)), rtol=0
    )


def test_torch_clip_grad_norm_of_each_tensor() -> None:
    def clip(params: list[nn.Parameter]) -> None:
        for param in params:
            nn.utils.clip_grad_norm_([param], 1.0)

    compare("norm(max_norm=1, scope=tensor)", in_place(clip))


def test_timm_adaptive_gradient_clipping() -> None:
    agc = module("timm.utils.agc")
    compare(
        "agc(clip_factor=0.5)",
        in_place(lambda ps: agc.adaptive_clip_grad(ps, clip_factor=0.5, eps=1e-3)),
    )


# -- optax, in JAX's layout -----------------------------------------------------------------------


def to_jax(tensor: Tensor) -> npt.NDArray[np.float32]:
    """Inputs before outputs: (in, out) and (height, width, in, out)."""
    order = {1: (0,), 2: (1, 0), 4: (2, 3, 1, 0)}[tensor.ndim]
    return np.transpose(tensor.numpy(), order)


def from_jax(array: Any) -> Tensor:
    order = {1: (0,), 2: (1, 0), 4: (3, 2, 0, 1)}[array.ndim]
    return torch.tensor(np.transpose(np.asarray(array), order))


def optax_peer(make: Callable[[Any], Any]) -> Peer:
    jax = module("jax")
    clip = make(module("optax"))
    update = jax.jit(clip.update)
    state: list[Any] = []

    def peer(weights: Tensors, grads: Tensors) -> Tensors:
        params = {name: to_jax(w) for name, w in weights.items()}
        if not state:
            state.append(clip.init(params))
        made, state[0] = update({name: to_jax(g) for name, g in grads.items()}, state[0], params)
        return {name: from_jax(each) for name, each in made.items()}

    return peer


@pytest.mark.parametrize(
    ("strategy", "make"),
    [
        ("value(clip_value=0.5)", lambda optax: optax.clip(0.5)),
        ("norm(max_norm=3)", lambda optax: optax.clip_by_global_norm(3.0)),
        ("block_rms(max_rms=0.5)", lambda optax: optax.clip_by_block_rms(0.5)),
        ("agc(clip_factor=0.5)", lambda optax: optax.adaptive_grad_clip(0.5, eps=1e-3)),
        ("normalized(target=2)", lambda optax: optax.normalize_by_update_norm(2.0, eps=1e-6)),
    ],
)
def test_optax(strategy: str, make: Callable[[Any], Any]) -> None:
    compare(strategy, optax_peer(make))


def test_optax_clips_single_examples() -> None:
    optax = module("optax")
    examples, model = 8, nn.Linear(5, 3)
    clipper = gclip.Clipper(model, "per_sample(max_norm=2)")
    source = torch.Generator().manual_seed(2)
    clipped = 0
    for _ in range(STEPS):
        inputs = torch.randn(examples, 5, generator=source)
        targets = torch.randn(examples, 3, generator=source)
        with torch.no_grad():
            away = 2 / 3 * (model(inputs) - targets)  # of the mean squared error
        each = [away.unsqueeze(2) * inputs.unsqueeze(1), away]
        total, count = optax.per_example_global_norm_clip([g.numpy() for g in each], 2.0)
        clipped += int(count)
        model.zero_grad()
        clipper.backward(inputs, targets, nn.functional.mse_loss)
        clipper.step()
        for param, want in zip(model.parameters(), total, strict=True):
            np.testing.assert_allclose(
                _there(param.grad).numpy(), np.asarray(want) / examples, rtol=1e-5, atol=1e-6
            )
    assert 0 < clipped < STEPS * examples


# -- keras ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategy", "setting"),
    [
        ("norm(max_norm=1, scope=tensor)", {"clipnorm": 1.0}),
        ("norm(max_norm=3)", {"global_clipnorm": 3.0}),
        ("value(clip_value=0.5)", {"clipvalue": 0.5}),
    ],
)
def test_keras(strategy: str, setting: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    keras = module("keras")
    if keras.backend.backend() != "torch":
        pytest.skip("keras was imported with another backend")

    def peer(weights: Tensors, grads: Tensors) -> Tensors:
        # A step of SGD at learning rate 1 from zero is the clipped gradient, to the bit.
        variables = [keras.Variable(np.zeros(g.shape, np.float32)) for g in grads.values()]
        optimizer = keras.optimizers.SGD(1.0, **setting)
        optimizer.apply(list(grads.values()), variables)
        made = [-v.value.detach() for v in variables]
        return dict(zip(grads, made, strict=True))

    compare(strategy, peer)


# -- the package autoclip -------------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["tensor", "global"])
def test_autoclip_quantile(scope: str) -> None:
    autoclip = module("autoclip.torch")
    made: list[Any] = []

    def clip(params: list[nn.Parameter]) -> None:
        if not made:
            made.append(
                autoclip.QuantileClip(
                    params, quantile=0.6, history_length=50, global_threshold=scope == "global"
                )
            )
        made[0].step()

    compare(f"past_quantile(q=0.6, window=50, scope={scope})", in_place(clip))


# -- heavyball ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategy", "clip"),
    [
        ("norm(max_norm=3)", lambda hb, ps, gs: hb.global_l2norm_clip(gs, 3.0)),
        ("norm(max_norm=1, scope=tensor)", lambda hb, ps, gs: hb.l2_clip_(gs, 1.0)),
        ("block_rms(max_rms=0.5)", lambda hb, ps, gs: hb.rmsnorm_clip_(gs, 0.5)),
        (
            "block_rms(max_rms=0.5, scope=global)",
            lambda hb, ps, gs: hb.global_rmsnorm_clip(gs, 0.5),
        ),
        (
            "agc(clip_factor=0.5, scope=tensor)",
            lambda hb, ps, gs: hb.adaptive_gradient_clipping_(ps, gs, 0.5, minimum=1e-3),
        ),
    ],
)
def test_heavyball(
    strategy: str, clip: Callable[[Any, Any, Any], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    heavyball = module("heavyball.utils")
    monkeypatch.setattr(heavyball, "compile_mode", None)
    compare(
        strategy,
        in_place(
            lambda ps: clip(heavyball, [p.detach() for p in ps], [_there(p.grad) for p in ps])
        ),
    )


# -- pytorch_optimizer ----------------------------------------------------------------------------


def first_moments(make: Callable[[Any, list[nn.Parameter]], torch.optim.Optimizer]) -> Peer:
    """What an optimizer makes of the gradients: with β₁ = 0 its first moment is just that."""
    library = module("pytorch_optimizer")
    made: list[torch.optim.Optimizer] = []
    params: dict[str, nn.Parameter] = {}

    def peer(weights: Tensors, grads: Tensors) -> Tensors:
        if not made:
            params.update((name, nn.Parameter(w.clone())) for name, w in weights.items())
            made.append(make(library, list(params.values())))
        for name, param in params.items():
            param.grad = grads[name]
        made[0].step()
        return {
            name: made[0].state[p]["exp_avg"].reshape(p.shape).clone() for name, p in params.items()
        }

    return peer


@pytest.mark.parametrize(
    ("strategy", "make"),
    [
        (
            # its counter starts at 1 and clips in step 20
            "spam(threshold=50, warmup=19)",
            lambda library, ps: library.SPAM(
                ps, threshold=50, grad_accu_steps=20, update_proj_gap=10**6, betas=(0.0, 0.999)
            ),
        ),
        ("stable_spam", lambda library, ps: library.StableSPAM(ps, betas=(0.0, 0.999))),
        (
            # its warm-up is over in step 30, counted from 1
            "adagc(warmup=29)",
            lambda library, ps: library.AdaGC(ps, warmup_steps=30, betas=(0.0, 0.999)),
        ),
        ("adanorm", lambda library, ps: library.AdaNorm(ps, betas=(0.0, 0.999))),
    ],
)
def test_pytorch_optimizer(
    strategy: str, make: Callable[[Any, list[nn.Parameter]], torch.optim.Optimizer]
) -> None:
    compare(strategy, first_moments(make))


def test_pytorch_optimizer_agc() -> None:
    agc = module("pytorch_optimizer.optimizer.agc").agc

    def peer(weights: Tensors, grads: Tensors) -> Tensors:
        return {n: agc(w, grads[n], agc_eps=1e-3, agc_clip_val=0.5) for n, w in weights.items()}

    compare("agc(clip_factor=0.5)", peer)


# -- on the side of the update: parameters, step by step ------------------------------------------


def parameters(make: Callable[[list[nn.Parameter]], Any], spec: str | None) -> Iterator[Tensors]:
    """The parameters after each step of an optimizer, from zero, with `spec` attached."""
    params = {name: nn.Parameter(torch.zeros(shape)) for name, shape in SHAPES.items()}
    optimizer = make(list(params.values()))
    if spec is not None:
        gclip.attach(optimizer, spec)
    for step, grads in enumerate(gradients()):
        for name, param in params.items():
            param.grad = grads[name] * (step > 0)
        optimizer.step()
        yield {name: param.detach().clone() for name, param in params.items()}


def assert_close(ours: Iterator[Tensors], theirs: Iterator[Tensors]) -> None:
    for step, (got, want) in enumerate(zip(ours, theirs, strict=True)):
        for name in SHAPES:
            size = float(want[name].abs().max())
            np.testing.assert_allclose(
                got[name].numpy(), want[name].numpy(), rtol=1e-5, atol=1e-5 * size,
                err_msg=f"{name}, step {step}",
            )  # fmt: skip


def test_pytorch_optimizer_adafactor_clips_the_update() -> None:
    library = module("pytorch_optimizer")

    def make(params: list[nn.Parameter], largest: float) -> Any:
        return library.AdaFactor(
            params, lr=0.1, betas=(None, 0.99), clip_threshold=largest, scale_parameter=False,
            relative_step=False,
        )  # fmt: skip

    assert_close(
        parameters(lambda ps: make(ps, 1e9), "update_rms(max_rms=0.7)"),
        parameters(lambda ps: make(ps, 0.7), None),
    )


def acclip(alpha: float, lr: float = 0.1, beta: float = 0.9) -> Iterator[Tensors]:
    """The paper's whole optimizer: momentum, threshold, clip, step."""
    size = {name: torch.zeros(shape, dtype=torch.float64) for name, shape in SHAPES.items()}
    state = [{n: s.clone() for n, s in size.items()} for _ in range(3)]
    params, momentum, power = state
    for step, grads in enumerate(gradients()):
        for name in SHAPES:
            g = grads[name].double() * (step > 0)
            momentum[name] = beta * momentum[name] + (1 - beta) * g
            power[name] = 0.99 * power[name] + 0.01 * g.abs() ** alpha
            share = power[name] ** (1 / alpha) / (momentum[name].abs() + 1e-5)
            params[name] = params[name] - lr * share.clamp(max=1) * momentum[name]
        yield {name: param.float() for name, param in params.items()}


@pytest.mark.parametrize("alpha", [1.0, 1.5])
def test_acclip_on_sgd_is_the_papers_optimizer(alpha: float) -> None:
    # The first gradient is zero, and so torch's momentum starts at zero like the paper's.
    def sgd(params: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD(params, lr=0.1, momentum=0.9, dampening=0.9)

    assert_close(parameters(sgd, f"acclip(alpha={alpha})"), acclip(alpha))
