"""Answers that take seconds to work out and are kept: what a strategy is, what a study holds.

An answer is true of exactly one gclip, with the code and the libraries that it was made by: it is
kept under the digest of all of them, and is made again where anything differs. So it is where
somebody else's code has a say (an installed plugin, a strategy registered in this process), and
where the cache cannot be read or written: to keep nothing costs time, and nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from gclip.core.cache_folder import cache_folder
from gclip.core.files import read_file
from gclip.errors import UsageError

PLUGIN_GROUPS = ("gclip.strategies", "gclip.problems", "gclip.models")
_BESIDE = ("gclip.strategies", "gclip.studies")
_LIBRARIES = ("torch", "numpy", "scikit-learn", "optuna", "SQLAlchemy")
_CODE = (".py", ".toml", ".json")
_NO_CODE = ("__pycache__", "records")
_REGISTRIES = ("gclip.core.registry", "gclip.core.named_registry")
_FOLDERS, _ANSWERS = 8, 100
"""Of so many installations answers are kept, and of each so many: the latest."""


class KeptAnswer:
    """The answer `name`, which may have been kept.

    In a process that has registered strategies or problems before this is made, nothing is recalled
    or kept: they may be anybody's.
    """

    def __init__(self, name: str) -> None:
        folder = None if _registries_are_loaded() else _folder()
        self._path = None if folder is None else folder / f"{name}.json"

    @property
    def possible(self) -> bool:
        """Whether it may be kept, if the cache can be written."""
        return self._path is not None

    def recall(self) -> Any | None:
        """The answer as it was kept; None where it must be worked out."""
        if self._path is None:
            return None
        try:
            kept = json.loads(read_file(self._path))
            text, seal = kept["answer"], kept["sha256"]
            return json.loads(text) if _sealed(text) == seal else None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None

    def keep(self, answer: Any) -> None:
        """Keep it, if it comes back from JSON as it is and the cache can be written."""
        if self._path is None:
            return
        try:
            text = json.dumps(answer)
            if json.loads(text) != answer:  # a tuple, say
                return
        except (TypeError, ValueError, RecursionError):
            return
        with contextlib.suppress(OSError):
            _write(self._path, json.dumps({"sha256": _sealed(text), "answer": text}))


def _registries_are_loaded() -> bool:
    return any(name in sys.modules for name in _REGISTRIES)


def _sealed(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _write(path: Path, text: str) -> None:
    """Whole or not at all, whoever else is writing the same."""
    is_new = not path.parent.is_dir()
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=".new-", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    _forget(path.parent, _ANSWERS)
    if is_new:
        _forget(path.parent.parent, _FOLDERS)


def others_take_part() -> bool:
    """Whether an installed package brings strategies, problems or models."""
    points = importlib.metadata.entry_points()
    return any(points.select(group=group) for group in PLUGIN_GROUPS)


def _folder() -> Path | None:
    """Where the answers of this gclip are; None where none may be kept."""
    digest = _code_digest()
    if digest is None:
        return None
    try:
        return cache_folder() / "answers" / digest
    except UsageError:
        return None


@cache
def _code_digest() -> str | None:
    """Of all that an answer depends on; None where that cannot be known."""
    digest = hashlib.sha256(repr((sys.version, sys.platform)).encode())
    try:
        if others_take_part():
            return None
        for name in _LIBRARIES:
            digest.update(f"{name} {importlib.metadata.version(name)}\n".encode())
        for root in _roots():
            for path, content in _code_in(root):
                digest.update(f"{path} {len(content)}\n".encode())
                digest.update(content)
    except Exception:  # whatever other packages' metadata does: to know nothing is to keep nothing
        return None
    return digest.hexdigest()[:32]


def _roots() -> list[str]:
    """The folders of gclip's code: the package's, and those installed beside it."""
    roots = [str(Path(__file__).parents[1])]
    for name in _BESIDE:
        spec = importlib.util.find_spec(name)
        if spec is None or not spec.submodule_search_locations:
            raise ModuleNotFoundError(name)
        roots += spec.submodule_search_locations
    return roots


def _code_in(root: str) -> Iterator[tuple[str, bytes]]:
    """Of each file of code in a folder, its path there and its bytes."""
    for folder, inner, names in os.walk(root):
        inner[:] = sorted(name for name in inner if name not in _NO_CODE)
        for name in sorted(names):
            if name.endswith(_CODE):
                path = os.path.join(folder, name)
                with open(path, "rb", buffering=0) as file:
                    yield os.path.relpath(path, root), file.read()


def _forget(folder: Path, most: int) -> None:
    """Keep the latest entries of a folder only."""
    entries = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
    for old in entries[most:]:
        if old.is_dir():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.unlink(missing_ok=True)
