"""The broken problems and models, registered for these tests alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import gclip
from gclip.core.named_registry import registries
from gclip.training.problem_registry import find_problem


@pytest.fixture(scope="module", autouse=True)
def broken() -> Iterator[None]:
    """Loaded as a user's files are."""
    before = {each.kind: (each, each.names() and dict(each._entries)) for each in registries()}
    for file in ("broken_problems.py", "broken_models.py"):
        gclip.load_plugins(Path(__file__).with_name(file))
    yield
    for registry, entries in before.values():
        registry._entries.clear()
        registry._entries.update(entries)
    find_problem.cache_clear()
