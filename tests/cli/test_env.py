"""``gclip env``: what a bug report needs."""

from __future__ import annotations

import importlib.metadata
import platform
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from gclip.execution import cores

Command = Any  # of conftest.py


def test_versions_machine_and_folders(
    gclip: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GCLIP_CACHE", str(tmp_path / "kept"))
    found = gclip("env", "--json").json
    assert found["gclip"] == importlib.metadata.version("gclip")
    assert found["python"] == platform.python_version()
    assert found["packages"]["torch"] == torch.__version__
    for name in ("torchvision", "numpy", "scipy", "optuna", "seaborn", "pandas", "matplotlib"):
        assert found["packages"][name] == importlib.metadata.version(name)
    assert found["cores"] == cores()
    assert found["threads"] == torch.get_num_threads()
    assert found["devices"][0] == {"device": "cpu"}
    assert found["cache"] == str(tmp_path / "kept")
    assert found["store"] == "runs"
    text = gclip("env").out
    for said in (found["gclip"], found["python"], torch.__version__, found["cache"]):
        assert said in text


def test_every_package_that_gclip_needs_is_told(gclip: Command) -> None:
    found = gclip("env", "--json").json
    required = importlib.metadata.requires("gclip") or []
    for line in required:
        name = re.split(r"[^\w.-]", line)[0]
        if name == "gclip":  # an extra that is several others
            continue
        told = [found["packages"], *found["extras"].values()]
        assert any(name in each for each in told), name


def test_extras_say_what_is_missing(gclip: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    version = importlib.metadata.version

    def without(name: str) -> str:
        if name == "psycopg":
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(importlib.metadata, "version", without)
    assert gclip("env", "--json").json["extras"]["postgres"] == {"psycopg": None}
    assert "psycopg not installed" in gclip("env").out


def test_a_gpu_is_named(gclip: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    class Facts:
        name, total_memory = "NVIDIA Test", 80 * 2**30

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda place: Facts)
    assert "cuda:0 (NVIDIA Test, 80 GiB)" in gclip("env").out


def test_a_user_without_a_home_is_told_so(gclip: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("no home")

    for name in ("GCLIP_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    answer = gclip("env")
    assert answer.code == 0
    assert "this user has no home folder" in answer.out
