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
_cache: dict[tuple[str, float, int], dict[str, Any]] = {}


def digests(cls: type[Strategy], seed: int) -> list[str]:
    """For each step the norm that is left, and a digest of all that is left."""
    rig, lines = make(cls(), seed=seed), []
    for result in rig.run(0, STEPS):
        digest = hashlib.sha256()
        for grad in result.grads.values():
            digest.update(b"" if grad is None else grad.detach().numpy().tobytes())
        norm = float(result.clipped_norm.sum())
        lines.append(f"a norm of {norm:.9g} (bits {digest.hexdigest()[:8]})")
    return lines


def subprocess_digests(cls: type[Strategy], seed: int) -> list[str]:
    """`digests` of a process of its own.

    Raises:
        DoesNotApply: the class is defined where another process cannot find it.
        RuntimeError: the other process failed.
    """
    origin, name = _origin(cls), cls.__qualname__
    key = (origin, _modified(origin), seed)
    if key not in _cache:
        _cache[key] = _run([_address(each) for each in _neighbours(cls)], seed)
    if name not in _cache[key]:  # a class inside another, say
        _cache[key] |= _run([_address(cls)], seed)
    digests_or_error = _cache[key][name]
    if isinstance(digests_or_error, str):
        raise RuntimeError(f"in another process: {digests_or_error}")
    return list(digests_or_error)


def main() -> None:
    """The other process: addresses on stdin, digests by name on stdout."""
    request = json.load(sys.stdin)
    answers: dict[str, Any] = {}
    modules: dict[str, Any] = {}
    for module, file, name in request["classes"]:
        try:
            if module not in modules:
                modules[module] = _import(module, file)
            answers[name] = digests(_resolve(modules[module], name), request["seed"])
        except Exception as error:  # told by the process that asked
            answers[name] = f"{type(error).__name__}: {error}"
    print(json.dumps(answers))


def _origin(cls: type[Strategy]) -> str:
    """What its neighbours share: the file of the class, or the package of gclip's own."""
    if "<locals>" in cls.__qualname__:
        raise DoesNotApply("it is defined inside a function, where no other process finds it")
    if registry.ships_with_gclip(cls):
        return "gclip.strategies"
    file = inspect.getsourcefile(cls)
    if file is None or not Path(file).is_file():
        raise DoesNotApply("it is defined in no file that another process could read")
    return file


def _modified(origin: str) -> float:
    return Path(origin).stat().st_mtime if Path(origin).is_file() else 0.0


def _neighbours(cls: type[Strategy]) -> list[type[Strategy]]:
    """The strategies that the same process may as well take on."""
    if registry.ships_with_gclip(cls):
        return list(filter(registry.ships_with_gclip, map(registry.get, registry.names())))
    members = vars(sys.modules[cls.__module__]).values() if cls.__module__ in sys.modules else ()
    own = [
        each for each in members if is_strategy_class(each) and each.__module__ == cls.__module__
    ]
    return [each for each in own if not inspect.isabstract(each)]


def _address(cls: type[Strategy]) -> tuple[str, str, str]:
    return cls.__module__, str(inspect.getsourcefile(cls)), cls.__qualname__


def _run(classes: list[tuple[str, str, str]], seed: int) -> dict[str, Any]:
    # Hashes of text then differ from process to process, as they do for users.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONHASHSEED"}
    completed = subprocess.run(
        [sys.executable, "-c", "from gclip.testing.process import main; main()"],
        input=json.dumps({"classes": classes, "seed": seed}),
        capture_output=True,
        text=True,
        check=False,
        env={**environment, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )
    if completed.returncode:
        raise RuntimeError(f"another process fails: {completed.stderr.strip().splitlines()[-1:]}")
    answer: dict[str, Any] = json.loads(completed.stdout.splitlines()[-1])
    return answer


def _import(module: str, file: str) -> Any:
    if module.startswith("gclip."):
        return importlib.import_module(module)
    return import_file(module, Path(file))


def _resolve(owner: Any, name: str) -> Any:
    for part in name.split("."):
        owner = getattr(owner, part)
    return owner
