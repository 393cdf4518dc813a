"""The examples in the docstrings of what users name most: each runs, and prints what it says."""

from __future__ import annotations

import doctest
import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest

import gclip
from gclip.core import named_registry, registry

MORE = ("gclip.training:RunConfig", "gclip.training:train", "gclip.results:Store")


def _found() -> dict[str, Any]:
    public = {name: getattr(gclip, name) for name in gclip.__all__}
    for path in MORE:
        module, _, name = path.partition(":")
        public[name] = getattr(importlib.import_module(module), name)
    return {name: thing for name, thing in public.items() if ">>>" in (inspect.getdoc(thing) or "")}


EXAMPLES = _found()


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_runs_as_it_stands(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_classes", dict(registry._classes))  # what it registers, goes
    for each in named_registry.registries():
        each.names()
        monkeypatch.setattr(each, "_entries", dict(each._entries))
    names = dict(vars(importlib.import_module(EXAMPLES[name].__module__)))
    tests = doctest.DocTestFinder(recurse=False).find(EXAMPLES[name], name, globs=names)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    said: list[str] = []
    for test in tests:
        runner.run(test, out=said.append)
    assert runner.failures == 0, "".join(said)
    assert runner.tries > 0


def test_the_most_used_names_have_one() -> None:
    assert len(EXAMPLES) >= 20, sorted(EXAMPLES)
