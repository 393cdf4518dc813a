"""A model's spelling: what may stand in it, and one for each model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import pytest
import torch
from torch import nn

import gclip
from gclip.errors import UsageError
from gclip.training import RunConfig, models
from gclip.training.models import registry


@pytest.fixture
def made() -> Iterator[dict[str, Any]]:
    """A model with settings of all kinds; what it was last built with."""
    seen: dict[str, Any] = {}
    before = dict(registry._MODELS._entries)
    models.names()

    @gclip.register_model("probe")
    def build(
        inputs: tuple[int, ...],
        outputs: int,
        *,
        width: int = 8,
        rate: float = 0.5,
        bias: bool = True,
        kind: Literal["a", "b"] = "a",
        word: str = "plain",
        limit: float | None = None,
    ) -> nn.Module:
        seen.update(inputs=inputs, outputs=outputs, **{
            "width": width, "rate": rate, "bias": bias, "kind": kind, "word": word, "limit": limit,
        })  # fmt: skip
        return nn.Linear(inputs[-1], outputs)

    yield seen
    registry._MODELS._entries.clear()
    registry._MODELS._entries.update(before)
    registry._MODELS._loaded = False


@pytest.mark.parametrize(
    ("spelling", "canonical"),
    [
        ("lenet", "lenet"),
        ("mlp( depth=2 )", "mlp"),
        ("mlp(dropout=0, depth=3,width=256)", "mlp(width=256, depth=3)"),
        ("plain(gain=1.5, depth=30)", "plain(depth=30, gain=1.5)"),
        ("probe(rate=1)", "probe(rate=1)"),
        ("probe(rate=0.50)", "probe"),
        ("probe(bias=false, kind=b)", "probe(bias=false, kind=b)"),
        ("probe(word='none', limit=none)", "probe(word='none')"),
        ("probe(word=\"it's so\", limit=inf)", "probe(word=\"it's so\", limit=inf)"),
        ("probe(limit=1e-30)", "probe(limit=1e-30)"),
    ],
)  # fmt: skip
def test_only_what_is_off_its_default_is_written(
    made: dict[str, Any], spelling: str, canonical: str
) -> None:
    assert models.canonical(spelling) == canonical
    assert models.canonical(canonical) == canonical
    assert models.parse(canonical) == models.parse(spelling)


@pytest.mark.parametrize(
    ("spelling", "said"),
    [
        ("lenett", r"unknown model 'lenett'; did you mean 'lenet'\? \(choices: .*vit\)"),
        ("mlp(widht=3)", r"unknown setting 'widht' of the model mlp; did you mean 'width'\?"),
        ("lenet(width=3)", r"unknown setting 'width' of the model lenet \(choices: dropout\)"),
        ("mlp(width=2.5)", r"width of the model mlp must be a whole number, but got 2\.5"),
        ("mlp(width=true)", r"width of the model mlp must be a whole number, but got True"),
        ("mlp(dropout=half)", r"dropout of the model mlp must be a number, but got 'half'"),
        ("mlp(width=linear(1, 2))", r"width of the model mlp must be a whole number"),
        ("probe(kind=c)", r"kind of the model probe must be one of a, b, but got 'c'"),
        ("probe(limit=wide)", r"limit of the model probe must be a number or none, but got 'wide'"),
        ("probe(rate=nan)", r"rate of the model probe must be a number, but got nan"),
        ("mlp(", r"cannot read the model 'mlp\(': .* as in 'mlp\(width=256\)'"),
        ("mlp(3)", r"cannot read the model"),
        ("chain(mlp)", r"a model takes settings, not models"),
        (7, r"a model is spelled as text like 'mlp\(width=256\)', not 7"),
    ],
)
def test_what_a_spelling_may_not_say(made: dict[str, Any], spelling: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        models.canonical(spelling)


def test_settings_reach_the_function(made: dict[str, Any]) -> None:
    models.build("probe(width=3, rate=2, bias=false, limit=4)", inputs=(5, 7), outputs=2)
    assert made == {
        "inputs": (5, 7), "outputs": 2, "width": 3, "rate": 2.0, "bias": False, "kind": "a",
        "word": "plain", "limit": 4.0,
    }  # fmt: skip
    assert type(made["rate"]) is float
    layers = models.build("mlp(width=5, depth=3)", inputs=(4,), outputs=2)
    shapes = [tuple(p.shape) for p in layers.parameters() if p.ndim == 2]
    assert shapes == [(5, 4), (5, 5), (5, 5), (2, 5)]


def test_dropout_is_of_models_that_have_it(made: dict[str, Any]) -> None:
    model = models.build("mlp(width=5)", dropout=0.25)
    assert [layer.p for layer in model.modules() if isinstance(layer, nn.Dropout)] == [0.25] * 2
    with pytest.raises(
        UsageError, match=r"dropout belongs to the models lenet, lstm, mlp, .*, but plain got 0\.1"
    ):
        models.build("plain", dropout=0.1)
    with pytest.raises(UsageError, match="has a dropout of its own, so it cannot have 0.1"):
        models.build("mlp(dropout=0.2)", dropout=0.1)
    for name in models.names_with("dropout"):
        kept, dropped = (models.build(name, dropout=share) for share in (0.0, 0.5))
        assert kept.state_dict().keys() == dropped.state_dict().keys() or name in ("mlp", "resnet9")
        for one, other in zip(kept.parameters(), dropped.parameters(), strict=True):
            assert torch.equal(one, other)
        x = torch.randn(4, 3, 32, 32)
        assert torch.equal(kept.eval()(x), dropped.eval()(x)), name
        assert not torch.equal(dropped.train()(x), dropped(x)), name


def test_a_run_is_one_however_its_dropout_is_asked_for() -> None:
    spelled = RunConfig(model="mlp(dropout=0.2, width=64)")
    assert (spelled.model, spelled.dropout) == ("mlp(width=64)", 0.2)
    assert spelled.key == RunConfig(model="mlp(width=64)", dropout=0.2).key
    assert spelled.replace(seed=1).dropout == 0.2
    assert RunConfig.from_json(spelled.to_json()) == spelled
    assert '"dropout"' not in RunConfig(model="mlp").to_json()
    with pytest.raises(UsageError, match=r"dropout belongs to the models .*, but plain got 0\.2"):
        spelled.replace(model="plain")
    with pytest.raises(UsageError, match=r"dropout must be in \[0, 1\), but got 1"):
        RunConfig(dropout=1)
    with pytest.raises(UsageError, match="unknown model 'mpl'"):
        spelled.replace(model="mpl")


def mixed(x, outputs, *, width=1):
    return nn.Linear(1, 1)


def bare(inputs, outputs, *, width):
    return nn.Linear(1, 1)


def loose(inputs, outputs, **more):
    return nn.Linear(1, 1)


@pytest.mark.parametrize(
    ("name", "function", "said"),
    [
        ("x", mixed, r"a function of \(inputs, outputs, \*, setting=default\), but mixed takes"),
        ("x", bare, "every setting of the model 'x' needs a default, and width has none"),
        ("x", loose, r"names all its settings after a \*, but loose takes \*\*more"),
        ("x", nn.Linear, "decorates a function"),
        ("Big Net", lambda inputs, outputs: None, "a model's name is lower-case"),
        ("lenet", lambda inputs, outputs: None, "the model name 'lenet' is taken by "),
    ],
)
def test_what_cannot_be_registered(name: str, function: Any, said: str) -> None:
    models.names()
    with pytest.raises(UsageError, match=said):
        gclip.register_model(name)(function)
    with pytest.raises(UsageError, match="with the name in quotes"):
        gclip.register_model(loose)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("gives", "said"),
    [
        (lambda: 3, r"the model odd must be a torch\.nn\.Module, but its function gives 3"),
        (lambda: nn.ReLU(), "the model odd has no trainable parameter"),
        (lambda: nn.Linear(2, 1).requires_grad_(False), "the model odd has no trainable parameter"),
        (lambda: 1 / 0, r"cannot be built for inputs of the shape \(4,\): ZeroDivisionError: div"),
    ],
)
def test_what_a_function_gives_is_looked_at(made: dict[str, Any], gives: Any, said: str) -> None:
    @gclip.register_model("odd")
    def build(inputs: tuple[int, ...], outputs: int) -> nn.Module:
        return gives()

    with pytest.raises(UsageError, match=said):
        gclip.build_model("odd", inputs=(4,))
    for wrong in ((), (3, 0), (2.0,), 3):
        with pytest.raises(UsageError, match="inputs is the shape of one example"):
            gclip.build_model("mlp", inputs=wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="outputs must be a whole number ≥ 1, but got 0"):
        gclip.build_model("mlp", outputs=0)
