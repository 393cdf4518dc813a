"""Where a library is missing one sentence says how to get it; and nothing is imported before."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import gclip
from gclip.integrations.options import ClippingOptions
from gclip.results.tensorboard import writer_class


@pytest.mark.parametrize(
    ("name", "absent"),
    [("lightning", "lightning.pytorch.callbacks"), ("transformers", "transformers")],
)
def test_a_missing_library_is_named(
    name: str, absent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, absent, None)
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, f"gclip.integrations.{name}", raising=False)
    with pytest.raises(gclip.UsageError, match=rf"pip install {name}$"):
        importlib.import_module(f"gclip.integrations.{name}")


def test_a_missing_tensorboard_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(gclip.UsageError, match="pip install tensorboard$"):
        writer_class()


def test_options_are_attachs() -> None:
    import inspect

    known = inspect.signature(gclip.attach).parameters
    assert set(ClippingOptions.__annotations__) == set(known) - {
        "optimizer", "strategy", "model", "fold",
    }  # fmt: skip


def test_nothing_is_imported_before_it_is_used() -> None:
    code = (
        "import sys, gclip, gclip.integrations, gclip.results.tensorboard; gclip.Clipper; "
        "print([n for n in ('lightning', 'transformers', 'accelerate', 'tensorboard') "
        "if n in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
