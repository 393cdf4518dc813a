"""``gclip env``: what a bug report should say about the machine and what is installed."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

import typer

from gclip.cli.options import Json, Place
from gclip.text import screen
from gclip.text.progress import load

PACKAGES = (
    *("torch", "torchvision", "numpy", "scipy", "optuna", "seaborn", "pandas", "matplotlib"),
    *("scikit-learn", "typer", "rich"),
)
"""What gclip needs: `pyproject.toml` names the versions."""

_EXTRAS = (
    *("dev", "docs", "postgres", "peers", "rl"),
    *("lightning", "transformers", "accelerate", "tensorboard"),
)


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("env")(env)


def env(json: Json = False) -> None:
    """Print versions, machine, devices and folders: put it into a bug report.

    \b
    Examples:
      gclip env
      gclip env --json
    """
    load("torch")
    every = facts()
    if json:
        screen.echo_json(every)
        return
    lines: dict[str, str] = {
        "gclip": every["gclip"],
        "Python": every["python"],
        **{name: version or "not installed" for name, version in every["packages"].items()},
        "system": every["system"],
        "processor": every["processor"],
        "cores": f"{every['cores']} of {every['cores_installed']} may be used",
        "threads": f"{every['threads']} by torch's default; a run has {every['threads_of_a_run']}",
        "devices": ", ".join(_device(each) for each in every["devices"]),
        "cache": every["cache"],
        "store": f"{every['store']} by default",
    }
    lines |= {
        f"extra {name}": ", ".join(
            f"{package} {version}" if version else f"{package} not installed"
            for package, version in packages.items()
        )
        for name, packages in every["extras"].items()
    }
    width = max(map(len, lines))
    for name, text in lines.items():
        screen.echo(f"{name:<{width}}  {text}")


def facts() -> dict[str, Any]:
    """Everything the command prints, by name."""
    import torch

    from gclip.execution import cores

    return {
        "gclip": importlib.metadata.version("gclip"),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES}
        | {"torch": torch.__version__},  # which says what it was built for, too
        "system": platform.platform(),
        "processor": _processor(),
        "cores": cores(),
        "cores_installed": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "threads_of_a_run": 1,
        "devices": _devices(),
        "cache": _cache(),
        "store": str(Place().store),
        "extras": {name: _extra(name) for name in _EXTRAS},
    }


def _cache() -> str:
    from gclip.errors import UsageError
    from gclip.training.cache import cache_folder

    try:
        return str(cache_folder())
    except UsageError as error:
        return str(error)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _extra(name: str) -> dict[str, str | None]:
    """The packages of an extra, with their versions; None for those that are not installed."""
    mark = f'extra == "{name}"'
    required = importlib.metadata.requires("gclip") or []
    names = [each.partition(";")[0].strip() for each in required if mark in each.replace("'", '"')]
    bare = [_bare(each) for each in names]
    return {each: _version(each) for each in bare}


def _bare(requirement: str) -> str:
    """``psycopg[binary]>=3.2`` as ``psycopg``."""
    for index, letter in enumerate(requirement):
        if not (letter.isalnum() or letter in "-_."):
            return requirement[:index]
    return requirement


def _processor() -> str:
    """The processor's name as its maker spells it, where the system tells."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return f"{line.partition(':')[2].strip()} ({platform.machine()})"
    except OSError:  # macOS and Windows
        pass
    return platform.processor() or platform.machine()


def _devices() -> list[dict[str, Any]]:
    import torch

    devices: list[dict[str, Any]] = [{"device": "cpu"}]
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        gpu = torch.cuda.get_device_properties(index)
        devices.append(
            {
                "device": f"cuda:{index}",
                "name": gpu.name,
                "memory_bytes": gpu.total_memory,
            }
        )
    if torch.backends.mps.is_available():
        devices.append({"device": "mps"})
    return devices


def _device(each: dict[str, Any]) -> str:
    if "name" not in each:
        return str(each["device"])
    return f"{each['device']} ({each['name']}, {each['memory_bytes'] / 2**30:.0f} GiB)"
