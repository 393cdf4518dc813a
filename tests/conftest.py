"""What all tests share: one thread, and small models with parameters of every shape."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

import gclip
from gclip.core import registry
from gclip.core.named_registry import registries
from gclip.training.problem_registry import find_problem
from tests.forked import forking

torch.set_num_threads(1)

# They start processes and wait: begun last, one of them would run alone at the end.
LONGEST = (
    "tests/testing/test_contract.py",
    "tests/test_docs.py",
    "tests/tuning/test_postgres.py",
    "tests/execution/test_fleets.py",
    "tests/test_readme.py",
    "tests/execution/test_users_files.py",
    "tests/cli/test_compare.py",
    "tests/execution/test_comparison.py",
    "tests/training/test_graphs.py",
    "tests/figures/test_figures.py",
    "tests/clipping/test_sharded.py",
    "tests/training/parallel/test_parallel.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Drills are skipped unless asked for; the longest files come first."""
    asked = bool(os.environ.get("GCLIP_DRILLS"))
    for item in items:
        if not asked and item.get_closest_marker("drill"):
            item.add_marker(pytest.mark.skip(reason="a drill: make drills runs it"))
    places = {file: place for place, file in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.nodeid.partition("::")[0], len(places)))


SHAPES = {
    "stem.scale": (),
    "stem.bias": (3,),
    "conv.weight": (4, 3, 3, 3),
    "conv.bias": (4,),
    "mix.weight": (5, 4, 3),
    "head.weight": (6, 20),
    "head.bias": (6,),
}


@pytest.fixture
def parameters() -> Callable[[int], dict[str, torch.nn.Parameter]]:
    """Makes named parameters from 0-D to 4-D with weights (and, per call, gradients)."""

    def make(seed: int = 0, dtype: torch.dtype = torch.float32) -> dict[str, torch.nn.Parameter]:
        generator = torch.Generator().manual_seed(seed)
        return {
            name: torch.nn.Parameter(torch.randn(shape, generator=generator).to(dtype))
            for name, shape in SHAPES.items()
        }

    return make


@pytest.fixture
def fill() -> Callable[..., dict[str, Tensor]]:
    """Gives parameters fresh random gradients; returns copies of them."""

    def give(params: dict[str, torch.nn.Parameter], seed: int, size: float = 1.0):
        generator = torch.Generator().manual_seed(1000 + seed)
        for param in params.values():
            grad = torch.randn(param.shape, generator=generator) * size
            param.grad = grad.to(param.dtype)
        return {name: param.grad.clone() for name, param in params.items()}

    return give


@pytest.fixture(autouse=True, scope="session")
def forked() -> Iterator[None]:
    """Workers, and the processes of contracts, need not load torch."""
    with forking():
        yield


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    """Whatever a test registers is forgotten after it."""
    gclip.names()
    classes, aliases = dict(registry._classes), dict(registry._aliases)
    others = [(each, each.names() and dict(each._entries)) for each in registries()]
    yield
    for each, entries in others:
        if each._entries != entries:
            each._entries.clear()
            each._entries.update(entries)
            find_problem.cache_clear()
    registry._classes.clear()
    registry._aliases.clear()
    registry._classes.update(classes)
    registry._aliases.update(aliases)
