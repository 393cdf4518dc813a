"""Four processes: their gradients spread in every way, their states saved on some and loaded on
others; `sharded_child.py` starts them.
"""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.debug import CommDebugMode
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel

import gclip
from gclip.core.strategy import remembers

SIZE = 4
EVERY = bool(os.environ.get("GCLIP_DISTRIBUTED"))
"""Whether each strategy is tried in each scope, as `make distributed` does."""
SHAPES = {
    "a.weight": (5, 4),  # by rows: 2, 2, 1 and none of them
    "a.bias": (1,),
    "b.weight": (3, 6),
    "b.bias": (3,),
    "c.weight": (2, 2),  # a plain tensor
}
PLAIN = "c.weight"
ALWAYS = (
    "percentile(p=30, scope=tensor)", "percentile(p=30, scope=unit)", "percentile(p=30)",
    "median_window(window=4, scale=1, scope=element)", "adagc(warmup=2, scope=layer)",
    "zclip(warmup=2)", "quantile_tracking", "spam(threshold=10, warmup=1)", "stable_spam",
    "chain(value(clip_value=0.5), percentile(p=30, scope=unit))",
)  # fmt: skip
"""Every kind of memory."""
MOVES = 4, 3, 3, 3
"""Steps on two processes, then on three, on two again, and on one."""
WITH_OPTIMIZER = ("percentile(p=10)", "acclip")
ON_MODELS = (
    "percentile(p=50, scope=layer)", "norm(max_norm=0.01, scope=unit, side=update)",
    *(["norm(max_norm=0.05)", "agc(clip_factor=0.01)", "spam(threshold=10, warmup=1)"] * EVERY),
)  # fmt: skip
COUNTED = {
    "norm(max_norm=0.5)": 1,
    "norm(max_norm=0.5, p=inf)": 2,  # and the L2 norms of the record
    "norm(max_norm=0.5, scope=unit)": 1,
    "percentile(p=30, scope=layer)": 1,
    "agc(clip_factor=0.1)": 2,  # and the weights' norms
    "value(clip_value=0.5)": 3,  # the largest element, and the L2 norms before and after
    "chain(norm, percentile(scope=tensor))": 2,
}
"""All-reduces a step, of parameters on one mesh of one dimension."""


def remembering() -> tuple[str, ...]:
    if not EVERY:
        return ALWAYS
    each = [name for name in gclip.names() if remembers(gclip.create(name))]
    on_gradients = [n for n in each if "gradient" in type(gclip.create(n)).sides]
    scoped = [
        f"{name}(scope={scope})"
        for name in on_gradients
        for scope in type(gclip.create(name)).scopes
        if not (name == "random" and scope == "element")
    ]
    return (*ALWAYS, *scoped)


def values(step: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(step)
    size = float(torch.randn((), generator=generator).exp())
    return {n: size * torch.randn(s, generator=generator) for n, s in SHAPES.items()}


def full(tensor: Any) -> Tensor:
    tensor = tensor.detach()
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor.clone()


def spread(name: str, value: Tensor, mesh: DeviceMesh | None, dim: int = 0) -> Tensor:
    if mesh is None or name == PLAIN:
        return value.clone()
    return distribute_tensor(value, mesh, [Shard(dim)], src_data_rank=None)


def parameters(mesh: DeviceMesh | None) -> dict[str, nn.Parameter]:
    return {n: nn.Parameter(spread(n, v, mesh)) for n, v in values(0).items()}


def clip(
    clippers: dict[str, gclip.Clipper],
    params: dict[str, nn.Parameter],
    mesh: DeviceMesh | None,
    steps: range,
) -> dict[str, list[list[Tensor]]]:
    """What each clipper leaves of the gradients of some steps, whole."""
    left: dict[str, list[list[Tensor]]] = {spec: [] for spec in clippers}
    for step in steps:
        for spec, clipper in clippers.items():
            for name, value in values(1 + step).items():
                params[name].grad = spread(name, value, mesh)
            clipper.step()
            left[spec].append([full(p.grad) for p in params.values()])
    return left


def made(params: dict[str, nn.Parameter]) -> dict[str, gclip.Clipper]:
    optimizer = torch.optim.SGD(params.values(), lr=0.1)
    return {s: gclip.Clipper(params.items(), s, optimizer=optimizer) for s in remembering()}


def memories(clippers: dict[str, gclip.Clipper]) -> dict[str, Any]:
    return {s: [part["memory"] for part in c.state_dict()["parts"]] for s, c in clippers.items()}


def saved(clippers: dict[str, gclip.Clipper]) -> dict[str, Any]:
    return {str(i): c.state_dict() for i, c in enumerate(clippers.values())}


def moved(meshes: list[DeviceMesh | None], folder: Path) -> dict[str, Any]:
    """Clippers saved on one mesh and loaded on the next, and what they leave there."""
    out: dict[str, Any] = {"left": [], "memory": []}
    first, rank = 0, dist.get_rank()
    for turn, (mesh, count) in enumerate(zip(meshes, MOVES, strict=True)):
        takes_part = rank == 0 if mesh is None else mesh.get_coordinate() is not None
        how: Any = {"no_dist": True} if mesh is None else {}
        if mesh is not None and takes_part:
            how = {"process_group": mesh.get_group()}
        if takes_part:
            params = parameters(mesh)
            clippers = made(params)
            if turn:
                state = saved(clippers)
                dcp.load(state, checkpoint_id=folder / str(turn - 1), **how)
                for index, clipper in enumerate(clippers.values()):
                    clipper.load_state_dict(state[str(index)])
            out["left"].append(clip(clippers, params, mesh, range(first, first + count)))
            out["memory"].append(memories(clippers))
            dcp.save(saved(clippers), checkpoint_id=folder / str(turn), **how)
        first += count
        dist.barrier()
    return out


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 5), nn.Tanh(), nn.LayerNorm(5), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 1)
    )


def batch(step: int, part: int, of: int) -> Tensor:
    generator = torch.Generator().manual_seed(step)
    rows = 12 // of
    return torch.randn(12, 6, generator=generator)[part * rows : (part + 1) * rows]


def train(net: Any, optimizer: Any, part: int, of: int, steps: range) -> None:
    for step in steps:
        optimizer.zero_grad()
        net(batch(step, part, of)).square().mean().backward()
        optimizer.step()


def trained(spec: str, net: Any, part: int, of: int, steps: int = 3) -> dict[str, Any]:
    """Steps of Adam on a part of the batches."""
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    handle = gclip.attach(optimizer, spec, model=net)
    train(net, optimizer, part, of, range(steps))
    weights = {n.removeprefix("module."): full(p) for n, p in net.named_parameters()}
    return {"weights": weights, "norm": torch.from_numpy(handle.record.arrays()["norm"])}


def resharded(spec: str, meshes: list[DeviceMesh | None], folder: Path) -> list[Any]:
    """A model of FSDP2 with its optimizer and its clipping, saved and loaded as users do."""
    out: list[Any] = []
    first, rank = 0, dist.get_rank()
    for turn, (mesh, count) in enumerate(zip(meshes, MOVES, strict=True)):
        takes_part = rank == 0 if mesh is None else mesh.get_coordinate() is not None
        if takes_part:
            net: Any = model() if mesh is None else fully_shard(model(), mesh=mesh)
            optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
            handle = gclip.attach(optimizer, spec, model=net)
            how: Any = {"no_dist": True}
            if mesh is not None:
                how = {"process_group": mesh.get_group()}
            if turn:
                weights, moments = get_state_dict(net, optimizer)
                state = {"net": weights, "optimizer": moments, "clip": handle.state_dict()}
                dcp.load(state, checkpoint_id=folder / str(turn - 1), **how)
                set_state_dict(
                    net, optimizer, model_state_dict=state["net"],
                    optim_state_dict=state["optimizer"],
                )  # fmt: skip
                handle.load_state_dict(state["clip"])
            part, of = (0, 1) if mesh is None else (mesh.get_local_rank(), mesh.size())
            train(net, optimizer, part, of, range(first, first + count))
            weights, moments = get_state_dict(net, optimizer)
            state = {"net": weights, "optimizer": moments, "clip": handle.state_dict()}
            dcp.save(state, checkpoint_id=folder / str(turn), **how)
            out.append({n: full(p) for n, p in net.named_parameters()})
            out[-1]["norm"] = torch.from_numpy(handle.record.arrays()["norm"])
        first += count
        dist.barrier()
    return out


def counted(mesh: DeviceMesh) -> dict[str, Any]:
    """How many collectives of which kind a step makes, when the first is over."""
    found = {}
    for spec in (*COUNTED, "spam(threshold=10, warmup=1)"):
        params = parameters(mesh)
        clipper = gclip.Clipper(params.items(), spec)
        for step in range(2):
            for name, value in values(1 + step).items():
                params[name].grad = spread(name, value, mesh)
            with CommDebugMode() as watched:
                clipper.step()
        found[spec] = {str(kind): n for kind, n in watched.get_comm_counts().items() if n}
    return found


def together(line: DeviceMesh, square: DeviceMesh) -> list[Any]:
    """Plain parameters, and shards on two meshes, in one clip; the norm and what is left."""

    def laid_out(name: str, value: Tensor) -> Tensor:
        if name == PLAIN:
            return value.clone()
        if name.startswith("a"):
            return distribute_tensor(value, line, [Shard(0)], src_data_rank=None)
        placements = [Replicate(), Shard(0)] if name == "b.bias" else [Shard(0), Shard(0)]
        return distribute_tensor(value, square, placements, src_data_rank=None)

    params = {n: nn.Parameter(laid_out(n, v)) for n, v in values(0).items()}
    out: list[Any] = []
    for scope in ("global", "layer", "tensor", "unit"):
        for name, value in values(1).items():
            params[name].grad = laid_out(name, value)
        with CommDebugMode() as watched:
            report = gclip.Clipper(params.items(), f"norm(max_norm=0.5, scope={scope})").step()
        counts = {str(kind): n for kind, n in watched.get_comm_counts().items() if n}
        out.append([report.norm, [full(p.grad) for p in params.values()], counts])
    return out


def refused() -> list[str]:
    """What is said of the first FSDP, with either kind of parameters."""
    said = []
    for original in (False, True):
        net = FullyShardedDataParallel(
            model(), use_orig_params=original, device_id=torch.device("cpu")
        )
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        for attempt in (
            lambda: gclip.Clipper(net, "norm"),  # noqa: B023
            lambda: gclip.attach(optimizer, "norm"),  # noqa: B023
            lambda: gclip.LayerNorms(net),  # noqa: B023
        ):
            try:
                attempt()
            except gclip.UsageError as error:
                said.append(str(error))
    return said


def work(rank: int) -> dict[str, Any]:
    warnings.simplefilter("ignore")
    folder = Path(sys.argv[1]) / "saved"
    dist.init_process_group("gloo")
    line = init_device_mesh("cpu", (SIZE,))
    square = init_device_mesh("cpu", (2, 2), mesh_dim_names=("outer", "inner"))
    two, three = DeviceMesh("cpu", [0, 1]), DeviceMesh("cpu", [0, 1, 2])
    meshes = [two, three, two, None]
    out: dict[str, Any] = {"ddp": {}, "hybrid": {}, "tensor": {}, "resharded": {}}
    out["moved"] = moved(meshes, folder / "moved")
    for spec in WITH_OPTIMIZER:
        out["resharded"][spec] = resharded(spec, meshes, folder / spec)
    for spec in ON_MODELS:
        out["ddp"][spec] = trained(spec, DistributedDataParallel(model()), rank, SIZE)
        out["hybrid"][spec] = trained(spec, fully_shard(model(), mesh=square), rank, SIZE)
    for spec in ON_MODELS[:1]:
        split = {"3": ColwiseParallel(), "5": RowwiseParallel()}
        net = parallelize_module(model(), square["inner"], split)
        fully_shard(net, mesh=square["outer"])
        out["tensor"][spec] = trained(spec, net, square["outer"].get_local_rank(), 2)
    out["counted"], out["together"] = counted(line), together(line, square)
    out["refused"] = refused()
    dist.destroy_process_group()
    return out
