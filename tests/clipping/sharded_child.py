"""Two processes that clip gradients spread over both; `test_sharded.py` starts them.

``python sharded_child.py FOLDER`` writes what each came to into ``FOLDER/two``, and what the four
of `mesh_child` came to into ``FOLDER/four``.
"""

from __future__ import annotations

import datetime
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

import gclip
from tests.processes import fork

STEPS = 3
SHAPES = {
    "a.weight": (5, 4),  # by rows: 3 and 2
    "a.bias": (1,),  # nothing on the second process
    "b.weight": (3, 6),  # by columns
    "b.bias": (3,),  # whole on both, its gradient in two summands
    "c.weight": (4, 2, 3),  # by rows, on a mesh of two dimensions
    "c.bias": (4,),  # a plain tensor
    "d.weight": (1, 3),  # nothing on the second process
    "d.bias": (),
    "e.weight": (3, 1),  # by columns: nothing on the second process
    "f.weight": (4, 3, 2),  # by rows, its units along dimension 1
    "g.weight": (2, 5),  # by columns, which are its units
}
UNIT_DIMS = {"f.weight": 1, "g.weight": 1}
SCOPES = ("global", "layer", "tensor", "unit")
ON_GRADIENTS = (
    *(f"norm(max_norm=0.5, scope={s})" for s in (*SCOPES, "element")),
    *(f"norm(max_norm=0.5, p={p}, scope={s})" for p in ("inf", 1) for s in ("global", "unit")),
    *(f"percentile(p=30, scope={s})" for s in (*SCOPES, "element")),
    *(f"agc(clip_factor=0.1, scope={s})" for s in SCOPES),
    *(f"percentile(p=10, rule=clamp, scope={s})" for s in ("layer", "unit")),
    "norm(max_norm=3, rule=normalize, scope=unit)",
    "norm(max_norm=3, rule=soft, scope=tensor)",
    "norm(max_norm=8.2, rule=skip)",
    "value(clip_value=0.5)",
    "value(clip_value=0.8, lower=-0.1)",
    "chain(value(clip_value=0.5), percentile(scope=unit))",
    "power(p=0.5)",
    "spam(threshold=10, warmup=1)",
    "stable_spam",
    "spectral(threshold=0.5)",
    "chain(spam(threshold=10, warmup=1), norm(max_norm=0.5, scope=unit))",
)
ON_UPDATES = (
    *(f"norm(max_norm=0.005, side=update, scope={s})" for s in (*SCOPES, "element")),
    "agc(clip_factor=0.003, side=update)",
    "update_rms(max_rms=0.5)",
    "clippy",
    "acclip",
    "chain(percentile(p=50), norm(max_norm=0.005, side=update, scope=unit))",
    "norm(max_norm=100, side=update)",
)
SURVEYED = ("norm", "norm(p=1, scope=unit)", "percentile(scope=layer)", "value", "agc")
ON_MODELS = (
    "norm(max_norm=0.05)",
    "agc(clip_factor=0.01)",
    "percentile(p=50, scope=layer)",
    "value(clip_value=0.005)",
    "spam(threshold=10, warmup=1)",
    "norm(max_norm=0.01, scope=unit, side=update)",
    "clippy",
)


def values(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


def plain() -> dict[str, nn.Parameter]:
    return {name: nn.Parameter(value) for name, value in values(0).items()}


def give_plain(params: dict[str, nn.Parameter], grads: dict[str, Tensor]) -> None:
    for name, param in params.items():
        param.grad = grads[name].clone()


def full(tensor: Tensor) -> Tensor:
    tensor = tensor.detach()
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor.clone()


def clip(spec: str, params: dict[str, nn.Parameter], give: Callable[..., None]) -> dict:
    """Several steps; in the second a gradient is missing."""
    clipper = gclip.Clipper(params.items(), spec, unit_dims=UNIT_DIMS)
    out: dict = {"grads": [], "norm": [], "limit": [], "clipped_norm": [], "skipped": []}
    for step in range(STEPS):
        give(params, values(5 + step))
        if step == 1:
            params["a.weight"].grad = None
        report = clipper.step()
        out["grads"].append({n: full(p.grad) for n, p in params.items() if p.grad is not None})
        for name in ("norm", "limit", "clipped_norm", "skipped"):
            out[name].append(getattr(report, name).clone())
    out["record"] = {name: torch.from_numpy(a) for name, a in clipper.record.arrays().items()}
    out["state"] = [part["memory"] for part in clipper.state_dict()["parts"]]
    return out


def update(spec: str, params: dict[str, nn.Parameter], give: Callable[..., None]) -> dict:
    """Several steps of SGD with momentum; in the second a gradient is missing."""
    optimizer = torch.optim.SGD(params.items(), lr=0.01, momentum=0.9, foreach=False)
    handle = gclip.attach(optimizer, spec, unit_dims=UNIT_DIMS)
    norms = []
    for step in range(STEPS):
        give(params, values(5 + step))
        if step == 1:
            params["a.weight"].grad = None
        optimizer.step()
        norms.append(handle.report.norm.clone())
    return {"weights": {n: full(p) for n, p in params.items()}, "norm": norms}


def survey(params: dict[str, nn.Parameter], give: Callable[..., None]) -> dict:
    """What a survey of some steps watched, and what it suggests."""
    watching = gclip.Survey(params.items(), strategies=SURVEYED, unit_dims=UNIT_DIMS)
    for step in range(STEPS):
        give(params, values(5 + step))
        watching.watch()
    table = watching.suggest()
    out: dict = {"suggested": {row.spelling: row.value for row in table}}
    for scope in (*SCOPES, "element"):
        out[scope] = watching.watched(scope).norm
    out["1-norm"] = watching.watched("unit", 1.0).norm
    return out


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 5), nn.Tanh(), nn.LayerNorm(5), nn.Linear(5, 3), nn.Tanh(), nn.Linear(3, 1)
    )


def train(spec: str, net: nn.Module, share: slice) -> dict:
    """Steps of Adam on this process's `share` of the batches."""
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    handle = gclip.attach(optimizer, spec, model=net)
    norms = []
    for step in range(STEPS):
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(8, 6, generator=generator)[share]
        optimizer.zero_grad()
        net(x).square().mean().backward()
        optimizer.step()
        norms.append(handle.report.norm.clone())
    return {"weights": {n: full(p) for n, p in net.named_parameters()}, "norm": norms}


def work(rank: int) -> dict:
    dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=60))
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
    from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module

    line = init_device_mesh("cpu", (2,))
    square = init_device_mesh("cpu", (1, 2), mesh_dim_names=("outer", "inner"))
    layout = {
        "a.weight": (line, [Shard(0)]),
        "a.bias": (line, [Shard(0)]),
        "b.weight": (line, [Shard(1)]),
        "b.bias": (line, [Replicate()]),
        "c.weight": (square, [Shard(0), Shard(0)]),
        "d.weight": (line, [Shard(0)]),
        "d.bias": (square, [Replicate(), Replicate()]),
        "e.weight": (square, [Replicate(), Shard(1)]),
        "f.weight": (line, [Shard(0)]),
        "g.weight": (line, [Shard(1)]),
    }

    def spread(name: str, value: Tensor) -> Tensor:
        if name not in layout:
            return value.clone()
        return distribute_tensor(value, *layout[name], src_data_rank=None)

    def sharded() -> dict[str, nn.Parameter]:
        return {name: nn.Parameter(spread(name, value)) for name, value in values(0).items()}

    def give(params: dict[str, nn.Parameter], grads: dict[str, Tensor]) -> None:
        for name, param in params.items():
            param.grad = spread(name, grads[name])
        part = grads["b.bias"] * (0.25 if rank else 0.75)
        params["b.bias"].grad = DTensor.from_local(part, line, [Partial()], run_check=False)

    def with_nan() -> dict:
        """A NaN in one process's shard alone."""
        out: dict = {}
        for policy in ("skip", "keep", "raise"):
            params = sharded()
            give(params, values(1))
            if rank == 1:
                params["a.weight"].grad.to_local()[0, 0] = float("nan")
            clipper = gclip.Clipper(params.items(), "norm(max_norm=0.5)", nonfinite=policy)
            try:
                out[f"{policy} report"] = clipper.step().finite
            except FloatingPointError as error:
                out["error"] = str(error)
            out[policy] = {n: full(p.grad) for n, p in params.items()}
        return out

    def within() -> bool:
        """Whether every bit stays where nothing is beyond its limit."""
        same = True
        for spec in ("norm(max_norm=1e6)", "value(clip_value=100)", "agc(clip_factor=1e6)"):
            params = sharded()
            give(params, values(1))
            before = [full(p.grad) for p in params.values()]
            gclip.Clipper(params.items(), spec).step()
            same &= all(
                torch.equal(b, full(p.grad)) for b, p in zip(before, params.values(), strict=True)
            )
        return same

    def norms() -> list[float]:
        """The norm that is reported, and that of this process's shards."""
        params = {n: p for n, p in sharded().items() if n in ("a.weight", "b.weight")}
        for name, param in params.items():
            param.grad = spread(name, values(1)[name])
        shards = torch.cat([p.grad.to_local().flatten() for p in params.values()])
        report = gclip.Clipper(params.items(), "norm(max_norm=0.5)").step()
        return [report.norm.item(), shards.norm().item()]

    def resumed() -> bool:
        """Whether a saved memory goes on as the one that never stopped."""
        ours, theirs = sharded(), sharded()
        spec = "chain(spam(threshold=10, warmup=1), percentile(p=50, scope=unit))"
        first, second = gclip.Clipper(ours.items(), spec), gclip.Clipper(theirs.items(), spec)
        for step in range(STEPS):
            give(ours, values(5 + step)), give(theirs, values(5 + step))
            first.step(), second.step()
            again = gclip.Clipper(theirs.items(), spec)
            again.load_state_dict(second.state_dict())
            second = again
        return all(torch.equal(full(ours[n].grad), full(theirs[n].grad)) for n in ours)

    def refused() -> list[str]:
        said = []
        net = fully_shard(model(), mesh=line)
        grouped = fully_shard(nn.ConvTranspose1d(4, 4, 2, groups=2), mesh=line)
        mixed = sharded()
        give(mixed, values(1))
        mixed["a.weight"].grad = values(1)["a.weight"]
        for attempt in (
            lambda: gclip.Clipper(net, "per_sample"),
            lambda: gclip.Clipper(grouped, "agc"),
            gclip.Clipper(mixed.items(), "norm").step,
        ):
            try:
                attempt()
            except gclip.UsageError as error:
                said.append(str(error))
        return said

    def made(before: bool) -> dict:
        """A clipper made before the model is sharded, or of one that is whole after backward."""
        net = model()
        clipper = gclip.Clipper(net, "norm(max_norm=0.05)") if before else None
        net = fully_shard(net, mesh=line)
        if clipper is None:
            clipper = gclip.Clipper(net, "norm(max_norm=0.05)")
            net.set_reshard_after_backward(False)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
        for step in range(2):
            generator = torch.Generator().manual_seed(step)
            optimizer.zero_grad()
            net(torch.randn(8, 6, generator=generator)[mine]).square().mean().backward()
            clipper.step()
            optimizer.step()
            net.reshard()
        shards = optimizer.param_groups[0]["params"]
        norms = [float(full(p.grad).norm()) for p in shards]
        return {"reported": clipper.report.norm.item(), "left": norms}

    mine = slice(4 * rank, 4 * rank + 4)
    out: dict = {"gradients": {}, "updates": {}, "fsdp": {}, "both": {}}
    for spec in ON_GRADIENTS:
        out["gradients"][spec] = clip(spec, sharded(), give)
    for spec in ON_UPDATES:
        out["updates"][spec] = update(spec, sharded(), give)
    for spec in ON_MODELS:
        out["fsdp"][spec] = train(spec, fully_shard(model(), mesh=line), mine)
    grid = init_device_mesh("cpu", (2, 1), mesh_dim_names=("data", "tensor"))
    for spec in ON_MODELS[:2]:
        net = parallelize_module(model(), grid["tensor"], {"0": ColwiseParallel()})
        fully_shard(net, mesh=grid["data"])
        out["both"][spec] = train(spec, net, mine)
    out["nan"], out["within"], out["resumed"] = with_nan(), within(), resumed()
    out["survey"] = survey(sharded(), give)
    out["refused"], out["norms"] = refused(), norms()
    out["made"] = [made(before) for before in (True, False)]
    dist.destroy_process_group()
    return out


if __name__ == "__main__":
    from tests.clipping import mesh_child

    for name, size, what in (("two", 2, work), ("four", mesh_child.SIZE, mesh_child.work)):
        folder = Path(sys.argv[1]) / name
        folder.mkdir()
        fork(size, what, folder)
