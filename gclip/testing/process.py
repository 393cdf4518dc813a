"""The same steps made in another process, which shares nothing but the source.

Starting Python and torch takes seconds, so one process works for all the strategies of a file,
and for all that ship with gclip.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from gclip.core import registry
from gclip.core.plugins import import_file
from gclip.core.strategy import Strategy, is_strategy_class
from gclip.testing.applicability import DoesNotApply
from gclip.testing.sides import make

STEPS = 20
_known: dict[tuple[str, float, int], dict[str, Any]] = {}


def digests(cls: type[Strategy], seed: int) -> list[str]:
    """For each step the norm that is left, and a digest of all that is left."""
    rig, said = make(cls(), seed=seed), []
    for made in rig.run(0, STEPS):
        digest = hashlib.sha256()
        for left in made.left.values():
            digest.update(b"" if left is None else left.detach().numpy().tobytes())
        norm = float(made.clipped_norm.sum())
        said.append(f"a norm of {norm:.9g} (bits {digest.hexdigest()[:8]})")
    return said


def elsewhere(cls: type[Strategy], seed: int) -> list[str]:
    """`digests` of a process of its own.

    Raises:
        DoesNotApply: the class is defined where another process cannot find it.
        RuntimeError: the other process failed.
    """
    home, name = _home(cls), cls.__qualname__
    key = (home, _changed(home), seed)
    if key not in _known:
        _known[key] = _ask([_address(each) for each in _neighbours(cls)], seed)
    if name not in _known[key]:  # a class inside another, say
        _known[key] |= _ask([_address(cls)], seed)
    answer = _known[key][name]
    if isinstance(answer, str):
        raise RuntimeError(f"in another process: {answer}")
    return list(answer)


def main() -> None:
    """The other process: addresses on stdin, digests by name on stdout."""
    asked = json.load(sys.stdin)
    found: dict[str, Any] = {}
    modules: dict[str, Any] = {}
    for module, file, name in asked["classes"]:
        try:
            if module not in modules:
                modules[module] = _imported(module, file)
            found[name] = digests(_within(modules[module], name), asked["seed"])
        except Exception as error:  # told by the process that asked
            found[name] = f"{type(error).__name__}: {error}"
    print(json.dumps(found))


def _home(cls: type[Strategy]) -> str:
    """What its neighbours share: the file of the class, or the package of gclip's own."""
    if "<locals>" in cls.__qualname__:
        raise DoesNotApply("it is defined inside a function, where no other process finds it")
    if registry.ships_with_gclip(cls):
        return "gclip.strategies"
    file = inspect.getsourcefile(cls)
    if file is None or not Path(file).is_file():
        raise DoesNotApply("it is defined in no file that another process could read")
    return file


def _changed(home: str) -> float:
    return Path(home).stat().st_mtime if Path(home).is_file() else 0.0


def _neighbours(cls: type[Strategy]) -> list[type[Strategy]]:
    """The strategies that the same process may as well take on."""
    if registry.ships_with_gclip(cls):
        return list(filter(registry.ships_with_gclip, map(registry.get, registry.names())))
    there = vars(sys.modules[cls.__module__]).values() if cls.__module__ in sys.modules else ()
    mine = [each for each in there if is_strategy_class(each) and each.__module__ == cls.__module__]
    return [each for each in mine if not inspect.isabstract(each)]


def _address(cls: type[Strategy]) -> tuple[str, str, str]:
    return cls.__module__, str(inspect.getsourcefile(cls)), cls.__qualname__


def _ask(classes: list[tuple[str, str, str]], seed: int) -> dict[str, Any]:
    # Hashes of text then differ from process to process, as they do for users.
    own = {name: value for name, value in os.environ.items() if name != "PYTHONHASHSEED"}
    done = subprocess.run(
        [sys.executable, "-c", "from gclip.testing.process import main; main()"],
        input=json.dumps({"classes": classes, "seed": seed}),
        capture_output=True,
        text=True,
        check=False,
        env={**own, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )
    if done.returncode:
        raise RuntimeError(f"another process fails: {done.stderr.strip().splitlines()[-1:]}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _imported(module: str, file: str) -> Any:
    if module.startswith("gclip."):
        return importlib.import_module(module)
    return import_file(module, Path(file))


def _within(place: Any, name: str) -> Any:
    for part in name.split("."):
        place = getattr(place, part)
    return place
