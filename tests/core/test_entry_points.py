"""Installed plugins that do not load: named in a warning, and everything else works."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import gclip
from gclip.cli import main
from gclip.core import registry
from gclip.core.entry_points import PluginWarning
from gclip.core.named_registry import registries

BROKEN = {
    "raises": ("raise RuntimeError('half\\ninstalled')", "RuntimeError: half installed"),
    "ends": ("raise SystemExit(0)", "SystemExit: 0 (it ends the program)"),
    "ends_at_once": ("import sys; sys.exit()", "SystemExit (it ends the program)"),
    "reads": ("def (", "SyntaxError: "),
    "needs": ("import not_installed_anywhere", "No module named 'not_installed_anywhere'"),
}
SOUND = """
from dataclasses import dataclass
import gclip

@gclip.register("sound_one")
@dataclass(frozen=True, kw_only=True)
class Sound(gclip.Strategy):
    most: float = gclip.tunable(1.0, low=0.1, high=10.0, doc="largest norm")

    def limit(self, seen, memory):
        return self.most
"""
GROUPS = ("gclip.strategies", "gclip.problems", "gclip.models")


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Make a text, and a sound plugin, installed packages that are seen anew."""

    def plant(text: str) -> None:
        for name, code in (("gclip_broken", text), ("gclip_sound", SOUND)):
            (tmp_path / f"{name}.py").write_text(code)
            info = tmp_path / f"{name}-1.0.dist-info"
            info.mkdir()
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
            groups = GROUPS if name == "gclip_broken" else GROUPS[:1]
            points = "".join(f"[{group}]\n{name} = {name}\n" for group in groups)
            (info / "entry_points.txt").write_text(points)
            monkeypatch.delitem(sys.modules, name, raising=False)
        monkeypatch.syspath_prepend(tmp_path)
        importlib.invalidate_caches()
        monkeypatch.setattr(registry, "_loaded", False)
        for each in registries():
            monkeypatch.setattr(each, "_loaded", False)

    return plant


def test_every_kind_of_plugin_has_a_group() -> None:
    assert {each._group for each in registries()} == set(GROUPS[1:])


@pytest.mark.parametrize("kind", BROKEN)
def test_the_others_load(kind: str, install: Callable[[str], None]) -> None:
    text, said = BROKEN[kind]
    install(text)
    for group, names in zip(GROUPS, [gclip.names, *(r.names for r in registries())], strict=False):
        with pytest.warns(PluginWarning) as told:
            found = names()
        assert re.search(r"'gclip_broken' \(gclip_broken, in gclip\.", str(told[0].message)), group
        assert said in str(told[0].message)
        assert len(told) == 1
        assert {"norm", "sound_one"} <= set(found) or group != GROUPS[0]
        assert names() == found  # and says it once


@pytest.mark.filterwarnings("default::gclip.core.entry_points.PluginWarning")
@pytest.mark.parametrize(
    "command",
    [
        ["list"],
        ["list", "--problems"],
        ["list", "--models"],
        ["show", "sound_one"],
        ["check", "norm", "--only", "zero"],
        ["train", "-s", "sound_one", "--fraction", "0.05", "--epochs", "1"],
        ["compare", "-s", "sound_one", "--fraction", "0.05", "--epochs", "1", "--seeds", "1",
         "--no-figures", "--workers", "1", "--fleet", "off"],
    ],
)  # fmt: skip
def test_no_command_ends_with_a_broken_plugin(
    command: list[str],
    install: Callable[[str], None],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    install(BROKEN["ends"][0])
    code = main(command)
    printed = capsys.readouterr()
    assert code == 0, printed.err
    assert "gclip: warning: the installed plugin 'gclip_broken'" in printed.err
    assert printed.out


def test_who_ends_the_program_ends_it_with_an_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def ends() -> None:
        raise SystemExit(0)

    monkeypatch.setattr(gclip.cli.command, "app_for", lambda _: lambda **__: ends())
    assert main(["list"]) == 1
    assert "a plugin or a library ended the program (SystemExit: 0)" in capsys.readouterr().err
