"""Names, spellings, fields and their errors; plugins from files, modules and entry points."""

from __future__ import annotations

import importlib
import subprocess
import sys
from dataclasses import dataclass, fields

import pytest

import gclip
from gclip.core import registry
from gclip.core.entry_points import PluginWarning

PLUGIN = '''
from dataclasses import dataclass
import gclip

@gclip.register("{name}")
@dataclass(frozen=True, kw_only=True)
class Mine(gclip.Strategy):
    """Twice the floor."""
    level: float = gclip.tunable(0.5, low=0.1, high=2.0)

    def limit(self, seen, memory):
        return {times} * self.level
'''


class TestSpelling:
    @pytest.mark.parametrize("name", gclip.names())
    def test_every_default_round_trips(self, name):
        strategy = gclip.create(name)
        assert str(strategy) == name
        assert gclip.parse(str(strategy)) == strategy

    @pytest.mark.parametrize(
        "text",
        [
            "agc(clip_factor=0.02, scope=tensor)",
            "norm(max_norm=0.5, p=inf)",
            "percentile(window=100, scope=unit, rule=soft)",
            "value(clip_value=1e-05, lower=-2)",
            "chain(value(clip_value=0.5), norm(max_norm=3, scope=layer))",
            "norm(max_norm=1e+30)",
        ],
    )
    def test_canonical_spellings_round_trip(self, text):
        assert str(gclip.parse(text)) == text

    def test_different_ways_to_write_the_same(self):
        for text in (
            " agc ( clip_factor = .02,scope='tensor' ) ",
            'agc(scope="tensor",clip_factor=2e-2)',
        ):
            assert str(gclip.parse(text)) == "agc(clip_factor=0.02, scope=tensor)"
        assert gclip.parse("autoclip(window=none)") == gclip.create("percentile")
        assert gclip.parse("norm()") == gclip.parse("norm(max_norm=1)") == gclip.create("norm")

    def test_extreme_numbers_survive(self):
        for c in (1e-300, 1 / 3, 123456789.123, float("inf"), 1e16):
            made = gclip.create("norm", max_norm=c)
            assert gclip.parse(str(made)) == made

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("nrom", "unknown strategy 'nrom'; did you mean 'norm'? (choices: none, acclip, "),
            ("norm(maxnorm=1)", "norm: unknown field 'maxnorm'; did you mean 'max_norm'?"),
            ("norm(max_norm=-1)", "norm: max_norm must be at least 0, but got -1"),
            ("norm(max_norm=nan)", "norm: max_norm must be a number, not NaN, but got nan"),
            ("norm(max_norm=big)", "norm: max_norm must be a number, but got 'big'"),
            ("norm(max_norm=true)", "norm: max_norm must be a number, but got True"),
            ("norm(scope=units)", "scope 'units' makes no sense here; did you mean 'unit'?"),
            ("value(scope=global)", "value: scope 'global' makes no sense here (choices: element)"),
            ("agc(scope=element)", "(choices: global, layer, tensor, unit)"),
            ("percentile(window=1.5)", "window must be a whole number or none, but got 1.5"),
            ("norm(0.5)", "'norm(0.5)': a field's name should stand at position 6"),
            ("norm(max_norm=1", "',' or ')' should stand at position 16"),
            ("norm) ", "the text should end at position 5"),
            ("norm(max_norm=1, max_norm=2)", "'max_norm' should be given once"),
            ("", "a strategy's name should stand at position 1"),
            ("norm(max_norm=%)", "a name, a number or one of ( ) , = should stand at position 15"),
            ("chain()", "chain needs at least one strategy"),
        ],
    )  # fmt: skip
    def test_mistakes_are_told_in_one_sentence(self, text, says):
        with pytest.raises(gclip.UsageError) as error:
            gclip.parse(text)
        assert says in str(error.value)
        assert "\n" not in str(error.value)


class TestRegister:
    def make(self, **namespace):
        def limit(self, seen, memory):
            return 1.0

        return dataclass(frozen=True, kw_only=True)(
            type("Made", (gclip.Strategy,), {"limit": limit, "__annotations__": {}, **namespace})
        )

    def test_a_name_twice(self):
        with pytest.raises(
            ValueError, match="the strategy name 'norm' is taken by gclip.strategies"
        ):
            gclip.register("norm")(self.make())
        with pytest.raises(ValueError, match="'autoclip' is taken"):
            gclip.register("fresh", "autoclip")(self.make())
        assert "fresh" not in gclip.names()

    @pytest.mark.parametrize("name", ["Norm", "my norm", "1st", "a(b", "", "chain", "inf"])
    def test_bad_names(self, name):
        with pytest.raises(ValueError, match="lower-case letters"):
            gclip.register(name)(self.make())

    def test_classes_that_break_the_contract(self):
        with pytest.raises(ValueError, match="decorates a subclass of gclip.Strategy"):
            gclip.register("x")(int)

        class NoDataclass(gclip.Strategy):
            def limit(self, seen, memory):
                return 1.0

        with pytest.raises(ValueError, match=r"write @dataclass\(frozen=True, kw_only=True\)"):
            gclip.register("x")(NoDataclass)

        @dataclass(frozen=True, kw_only=True)
        class NoLimit(gclip.Strategy):
            pass

        with pytest.raises(ValueError, match=r"NoLimit must define limit\(\)"):
            gclip.register("x")(NoLimit)

        @dataclass(frozen=True, kw_only=True)
        class NoDefault(gclip.Strategy):
            c: float

            def limit(self, seen, memory):
                return self.c

        with pytest.raises(ValueError, match="every field of NoDefault needs a default"):
            gclip.register("x")(NoDefault)
        with pytest.raises(ValueError, match="name in quotes"):
            gclip.register(NoDefault)

    def test_tunable_fields_need_a_range(self):
        with pytest.raises(ValueError, match="needs low and high, or choices"):
            gclip.tunable(1.0)
        with pytest.raises(ValueError, match="low <= high must hold"):
            gclip.tunable(1.0, low=2, high=1)
        with pytest.raises(ValueError, match="low > 0"):
            gclip.tunable(1.0, low=0, high=1, log=True)

    def test_fields_are_frozen_and_hashable(self):
        agc = gclip.create("agc")
        with pytest.raises(AttributeError):
            agc.clip_factor = 2.0
        assert len({agc, gclip.create("agc"), gclip.create("agc", eps=1e-4)}) == 2

    @pytest.mark.parametrize("name", gclip.names())
    def test_every_default_lies_in_its_search_range(self, name):
        cls = gclip.get(name)
        infos = gclip.fields_of(cls)
        assert {i.name for i in infos} == {f.name for f in fields(cls)}
        for info in infos:
            if info.kind == "tunable" and info.choices is None:
                assert info.low <= info.default <= info.high
            assert info.doc, f"{name}.{info.name} says nothing about itself"


class TestPlugins:
    def test_a_file(self, tmp_path):
        file = tmp_path / "mine.py"
        file.write_text(PLUGIN.format(name="mine", times=2))
        assert gclip.load_plugins(file) == ("mine",)
        before = gclip.code_digest(gclip.create("mine"))
        assert gclip.simulate(gclip.create("mine"), [3])[1].item() == 1.0

        file.write_text(
            "# a remark\n" + PLUGIN.format(name="mine", times=2).replace("Twice", "2 x")
        )
        gclip.load_plugins(str(file))
        assert gclip.code_digest(gclip.create("mine")) == before

        file.write_text(PLUGIN.format(name="mine", times=4))
        gclip.load_plugins(str(file))
        assert gclip.code_digest(gclip.create("mine")) != before
        assert gclip.simulate(gclip.create("mine"), [3])[1].item() == 2.0

    def test_a_module(self, tmp_path, monkeypatch):
        (tmp_path / "plug_in_module.py").write_text(PLUGIN.format(name="from-module", times=1))
        monkeypatch.syspath_prepend(tmp_path)
        assert gclip.load_plugins("plug_in_module") == ("from-module",)

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("x = 1", "registers no strategy"),
            ("import gclip\nx = 1 / 0", r"ZeroDivisionError: division by zero \(line 2 of p.py\)"),
            ("def (", "SyntaxError"),
            ("import not_installed_anywhere", "No module named 'not_installed_anywhere'"),
            (PLUGIN.format(name="norm", times=1), "the strategy name 'norm' is taken"),
        ],
    )
    def test_a_broken_file_is_loud(self, text, says, tmp_path):
        (tmp_path / "p.py").write_text(text)
        with pytest.raises(gclip.UsageError, match=says):
            gclip.load_plugins(tmp_path / "p.py")

    def test_what_is_not_there(self, tmp_path):
        with pytest.raises(gclip.UsageError, match="there is no such file"):
            gclip.load_plugins(tmp_path / "absent.py")
        with pytest.raises(gclip.UsageError, match="no such module"):
            gclip.load_plugins("absent_module")

    def test_entry_points(self, tmp_path, monkeypatch):
        (tmp_path / "gclip_extra.py").write_text(PLUGIN.format(name="extra", times=1))
        info = tmp_path / "gclip_extra-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: gclip-extra\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("[gclip.strategies]\nextra = gclip_extra\n")
        monkeypatch.syspath_prepend(tmp_path)
        importlib.invalidate_caches()
        monkeypatch.setattr(registry, "_loaded", False)
        assert "extra" in gclip.names()

        (tmp_path / "gclip_extra.py").write_text("raise RuntimeError('half installed')")
        sys.modules.pop("gclip_extra")
        monkeypatch.setattr(registry, "_loaded", False)
        with pytest.warns(PluginWarning, match="plugin 'extra'.*half installed"):
            assert "norm" in gclip.names()
        monkeypatch.setattr(registry, "_loaded", True)


def test_import_gclip_pulls_in_nothing_heavy():
    """`import gclip` alone loads not even torch; with every public name, torch alone."""
    code = (
        "import sys, gclip; assert 'torch' not in sys.modules;"
        "[getattr(gclip, n) for n in gclip.__all__]; gclip.names();"
        "heavy = {'torchvision', 'optuna', 'seaborn', 'pandas', 'scipy', 'sklearn', 'matplotlib'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_library_names_no_strategy():
    """No `if name == …`: the core must not know the strategies it serves."""
    import pathlib

    root = pathlib.Path(gclip.__file__).parent
    for path in [*root.glob("core/*.py"), *root.glob("clipping/**/*.py")]:
        text = path.read_text()
        assert "gclip.strategies." not in text, path
        assert '== "norm"' not in text, path
