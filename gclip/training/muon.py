"""Muon for a model's matrices and AdamW for the rest, as one optimizer of torch's."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import AdamW, Muon, Optimizer


class MuonWithAdamW(Optimizer):
    """`torch.optim.Muon` (Jordan et al., 2024), which takes matrices alone, beside AdamW.

    Muon makes each matrix's momentum orthogonal before it goes that way. Given to it are weights of
    two dimensions or more, convolutions' filters as rows ``(outputs, inputs · kH · kW)``. Given to
    AdamW are weights of one dimension (biases, norms, gains), those with one row (embeddings of
    positions), and the last matrix, which is the head: as Muon's authors advise.

    Both have one learning rate and one decoupled weight decay. By default Muon's steps are scaled
    to have the size of AdamW's (Liu et al., 2025, arXiv:2502.16982), so that one rate suits both.

    ``param_groups`` are Muon's matrices and AdamW's parameters, in this order; both step in one
    ``step()``, and ``state_dict()`` holds the state of both.

    Args:
        params: in the order of the model; no groups.
        lr: learning rate of both.
        weight_decay: decoupled, of both.
        momentum, nesterov, ns_coefficients, ns_steps, adjust_lr_fn: as `torch.optim.Muon`.
        betas, eps: as `torch.optim.AdamW`.
        foreach, fused, capturable: the form of AdamW's step.
    """

    def __init__(
        self,
        params: Iterable[Parameter],
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = (3.4445, -4.7750, 2.0315),
        ns_steps: int = 5,
        adjust_lr_fn: str | None = "match_rms_adamw",
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        *,
        foreach: bool | None = None,
        fused: bool | None = None,
        capturable: bool = False,
    ) -> None:
        matrices, others = split(params)
        # torch's optimizers refuse to be made of nothing, and so are made of a number each.
        muon = Muon(
            [torch.zeros(1, 1)],
            lr=lr, weight_decay=weight_decay, momentum=momentum, nesterov=nesterov,
            ns_coefficients=ns_coefficients, ns_steps=ns_steps, adjust_lr_fn=adjust_lr_fn,
        )  # fmt: skip
        adamw = AdamW(
            [torch.zeros(1)],
            lr=lr, weight_decay=weight_decay, betas=betas, eps=eps,
            foreach=foreach, fused=fused, capturable=capturable,
        )  # fmt: skip
        groups = [
            {**muon.param_groups[0], "params": matrices},
            {**adamw.param_groups[0], "params": others},
        ]
        super().__init__(groups, {})
        self._muon, self._adamw = muon, adamw
        # Else torch warns that it is not captured, which nobody means to do.
        adamw.__dict__["_warned_capturable_if_run_uncaptured"] = True

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of both, with the gradients that there are."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        matrices, others = self.param_groups
        # Both keep what they remember in this optimizer's state, which is what is saved, loaded
        # and taken back.
        stand_ins = []
        self._muon.state.clear()
        for parameter in matrices["params"]:
            if parameter.grad is not None:
                matrix = _as_matrix(parameter.detach(), parameter)
                matrix.grad = _as_matrix(parameter.grad, parameter)
                self._muon.state[matrix] = self.state[parameter]
                stand_ins.append(matrix)
        self._muon.param_groups = [{**matrices, "params": stand_ins}]
        self._muon.step()
        self._adamw.param_groups, self._adamw.state = [others], self.state
        self._adamw.step()
        return loss

    def __getstate__(self) -> dict[str, Any]:
        """All that a copy needs."""
        state: dict[str, Any] = super().__getstate__()  # type: ignore[no-untyped-call]
        return {**state, "_muon": self._muon, "_adamw": self._adamw}


def split(params: Iterable[Parameter]) -> tuple[list[Parameter], list[Parameter]]:
    """The matrices, which are Muon's, and the other parameters, which are AdamW's."""
    every = list(params)
    matrices = [p for p in every if p.ndim >= 2 and len(p) > 1][:-1]
    known = set(map(id, matrices))
    return matrices, [p for p in every if id(p) not in known]


def _as_matrix(value: Tensor, parameter: Tensor) -> Tensor:
    """``(outputs, all else)``; of the parameter itself a view, however its filters lie in memory.

    Muon comes to the same whatever the order of the columns.
    """
    order = sorted(range(1, parameter.ndim), key=parameter.stride, reverse=True)
    return value.permute(0, *order).flatten(1)
