"""Single examples of every kind of module, against a loop over the examples by torch alone."""

from __future__ import annotations

import copy
import math
import warnings
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations

import gclip
from gclip import UsageError

N = 5
LABELS = torch.tensor([0, 1, 1, 0, 1])


class Recurrent(nn.Module):
    def __init__(self, kind, **more):
        super().__init__()
        self.inner = getattr(nn, kind)(3, 4, batch_first=True, **more)
        self.head = nn.Linear(8 if more.get("bidirectional") else 4, 2)

    def forward(self, x):
        return self.head(self.inner(x)[0][:, -1])


class Tied(nn.Module):
    """The embedding's weight is the head's as well, and one layer is used twice."""

    def __init__(self):
        super().__init__()
        self.embed, self.twice, self.head = nn.Embedding(7, 4), nn.Linear(4, 4), nn.Linear(4, 7)
        self.head.weight = self.embed.weight

    def forward(self, x):
        return self.head(self.twice(torch.tanh(self.twice(self.embed(x).mean(1)))))


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.head = nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.inner(x, x, x)[0].mean(1))


class Branches(nn.Module):
    """Each example takes one of two ways; a third is never taken."""

    def __init__(self):
        super().__init__()
        self.left, self.right, self.never = nn.Linear(3, 2), nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, x):
        return self.left(x) if x.sum() > 0 else self.right(x)


class Decayed(nn.Module):
    """A part of the answer that no example changes: its gradients are one tensor, expanded."""

    def __init__(self):
        super().__init__()
        self.inner, self.spare, self.offset = nn.Linear(3, 2), nn.Linear(3, 2), nn.Linear(1, 1)

    def forward(self, x):
        return torch.tanh(self.inner(x)) * 1e-3 + self.offset.weight.square().sum() * x.new_tensor(
            [1.0, 0.0]
        )


def randn(*shape):
    return torch.randn(N, *shape, generator=torch.Generator().manual_seed(3))


def words():
    return torch.randint(0, 7, (N, 3), generator=torch.Generator().manual_seed(3))


def embedded(layer):
    return nn.Sequential(layer, nn.Flatten(), nn.LazyLinear(2))


def convolved(*layers):
    return nn.Sequential(nn.Conv2d(1, 4, 3), *layers, nn.Flatten(), nn.LazyLinear(2))


MODULES = {
    "linear": lambda: (nn.Linear(3, 2), randn(3)),
    "embedding": lambda: (embedded(nn.Embedding(7, 4)), words()),
    "padded embedding": lambda: (embedded(nn.Embedding(7, 4, padding_idx=0)), words()),
    "sparse embedding": lambda: (embedded(nn.Embedding(7, 4, sparse=True)), words()),
    "bag": lambda: (embedded(nn.EmbeddingBag(7, 4)), words()),
    "bag of sums": lambda: (embedded(nn.EmbeddingBag(7, 4, mode="sum")), words()),
    "sparse bag": lambda: (embedded(nn.EmbeddingBag(7, 4, sparse=True)), words()),
    "attention": lambda: (Attention(), randn(3, 4)),
    "encoder layer": lambda: (
        nn.Sequential(
            nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True),
            nn.Flatten(),
            nn.Linear(12, 2),
        ),
        randn(3, 4),
    ),
    "conv": lambda: (convolved(), randn(1, 6, 6)),
    "grouped conv": lambda: (convolved(nn.Conv2d(4, 4, 3, groups=2)), randn(1, 6, 6)),
    "transposed conv": lambda: (convolved(nn.ConvTranspose2d(4, 2, 3)), randn(1, 6, 6)),
    "group norm": lambda: (convolved(nn.GroupNorm(2, 4)), randn(1, 6, 6)),
    "layer norm": lambda: (nn.Sequential(nn.LayerNorm(3), nn.Linear(3, 2)), randn(3)),
    "instance norm": lambda: (convolved(nn.InstanceNorm2d(4, affine=True)), randn(1, 6, 6)),
    "instance norm with running statistics": lambda: (
        convolved(nn.InstanceNorm2d(4, affine=True, track_running_stats=True)),
        randn(1, 6, 6),
    ),
    "batch norm in eval mode": lambda: (convolved(nn.BatchNorm2d(4)).eval(), randn(1, 6, 6)),
    "prelu": lambda: (nn.Sequential(nn.Linear(3, 2), nn.PReLU(2)), randn(3)),
    "bilinear": lambda: (Squared(), randn(3)),
    "rnn": lambda: (Recurrent("RNN"), randn(6, 3)),
    "gru": lambda: (Recurrent("GRU"), randn(6, 3)),
    "lstm": lambda: (Recurrent("LSTM"), randn(6, 3)),
    "deep lstm": lambda: (
        Recurrent("LSTM", num_layers=2, bidirectional=True),
        randn(6, 3),
    ),
    "tied": lambda: (Tied(), words()),
    "weight norm": lambda: (parametrizations.weight_norm(nn.Linear(3, 2)), randn(3)),
    "old weight norm": lambda: (nn.utils.weight_norm(nn.Linear(3, 2)), randn(3)),
    "orthogonal": lambda: (parametrizations.orthogonal(nn.Linear(3, 2)), randn(3)),
    "spectral norm": lambda: (parametrizations.spectral_norm(nn.Linear(3, 2)), randn(3)),
    "old spectral norm": lambda: (nn.utils.spectral_norm(nn.Linear(3, 2)), randn(3)),
    "branches": lambda: (Branches(), randn(3)),
    "decayed": lambda: (Decayed(), randn(3)),
    "compiled": lambda: (torch.compile(nn.Linear(3, 2), backend="eager"), randn(3)),
}


class Squared(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Bilinear(3, 3, 2)

    def forward(self, x):
        return self.inner(x, x)


def made(name):
    torch.manual_seed(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, about lazy modules and old functions
        model, x = MODULES[name]()
        training = model.training
        with torch.no_grad():
            model.eval()(x)
            for key, buffer in model.named_buffers():
                if key.endswith(("_u", "_v")):  # a spectral norm that has not settled
                    buffer.copy_(F.normalize(torch.arange(1.0, len(buffer) + 1), dim=0))
    return model.train(training), x


def looped(model, x, y, loss=F.cross_entropy):
    """For each example its gradients by name, None where there are none. Buffers stay."""
    found = []
    for one, label in zip(x, y, strict=True):
        other = copy.deepcopy(model)
        loss(other(one[None]), label[None]).backward()
        found.append(
            {
                n: None if p.grad is None else p.grad.to_dense()
                for n, p in other.named_parameters()
                if p.requires_grad
            }
        )
    return found


def size(grads):
    return math.sqrt(sum(float(g.double().square().sum()) for g in grads if g is not None))


def clipped_mean(examples, limit):
    """The mean over the examples, each scaled down to `limit`."""
    names = [n for n in examples[0] if any(e[n] is not None for e in examples)]
    total = dict.fromkeys(names, 0)
    for grads in examples:
        factor = min(1.0, limit / max(size(grads.values()), 1e-300))
        for name in names:
            if grads[name] is not None:
                total[name] = total[name] + grads[name].double() * factor / len(examples)
    return total


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.filterwarnings("ignore")
class TestModules:
    def test_gradients_are_those_of_a_loop(self, name):
        model, x = made(name)
        want = looped(model, x, LABELS)
        grads, losses = gclip.per_sample_gradients(copy.deepcopy(model), x, LABELS)
        assert set(grads) == set(want[0])
        for key, each in grads.items():
            for place, mine in enumerate(each):
                theirs = want[place][key]
                theirs = torch.zeros_like(mine) if theirs is None else theirs
                torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)
        assert losses.shape == (N,)

    def test_the_clipped_mean_is_that_of_a_loop(self, name):
        model, x = made(name)
        examples = looped(model, x, LABELS)
        norms = sorted(size(e.values()) for e in examples)
        limit = norms[N // 2] * 0.999  # some are clipped, some are not
        want = clipped_mean(examples, limit)
        clipper = gclip.Clipper(model, f"per_sample(max_norm={limit!r})")
        clipper.backward(x, LABELS)
        report = clipper.step()
        assert sorted(report.norm.flatten().tolist()) == pytest.approx(norms, rel=1e-4, abs=1e-6)
        assert report.clipped.any()
        for key, param in model.named_parameters():
            if key not in want:
                assert param.grad is None  # as after backward() of a loss that does not know it
            else:
                torch.testing.assert_close(
                    param.grad.double(), want[key].reshape(param.shape), rtol=1e-5, atol=1e-6
                )

    def test_chunks_are_the_whole(self, name):
        (model, x), (other, _) = made(name), made(name)
        spec = "norm(max_norm=0.05, side=sample, scope=unit)"
        for net, chunk in ((model, None), (other, 2)):
            clipper = gclip.Clipper(net, spec)
            clipper.backward(x, LABELS, chunk=chunk)
            clipper.step()
        if "spectral" in name:
            return  # each chunk is a forward pass, and improves the estimate of the norm
        for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
            assert (mine.grad is None) == (theirs.grad is None)
            if mine.grad is not None:
                torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "name", ["instance norm with running statistics", "spectral norm", "old spectral norm"]
)
@pytest.mark.filterwarnings("ignore")
def test_buffers_become_what_a_batch_makes_of_them(name):
    model, x = made(name)
    other = copy.deepcopy(model)
    before = {n: b.clone() for n, b in model.named_buffers()}
    gclip.per_sample_gradients(model, x, LABELS)
    other(x)
    assert any(not torch.equal(before[n], b) for n, b in other.named_buffers())
    for (_, mine), (_, theirs) in zip(model.named_buffers(), other.named_buffers(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


class Counter(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.inner, self.how = nn.Linear(3, 2), how
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        if self.how == "in place":
            self.seen.add_(1)
        elif self.how == "assigned":
            self.seen = self.seen + 1
        else:
            self.seen = self.seen * 0.9 + x.detach().mean() * 0.1
        return self.inner(x)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("how", ["in place", "assigned"])
def test_a_counter_counts_the_batch_once(how):
    model = Counter(how)
    clipper = gclip.Clipper(model, "per_sample")
    for _ in range(3):
        clipper.backward(randn(3), LABELS)
        clipper.step()
    assert model.seen.item() == 3


def test_a_buffer_that_single_examples_cannot_tell_is_refused():
    model = Counter("averaged")
    with pytest.raises(UsageError, match=r"the model \(Counter\) changes its buffer 'seen'"):
        gclip.Clipper(model, "per_sample").backward(randn(3), LABELS)
    assert model.seen.item() == 0
    assert model.inner.weight.grad is None


def test_the_slow_way_is_told_once():
    model, x = made("gru")
    clipper = gclip.Clipper(model, "per_sample")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for _ in range(3):
            clipper.backward(x, LABELS)
            clipper.step()
    (said,) = [str(w.message) for w in told if "torch.func" in str(w.message)]
    assert said.startswith("torch.func cannot take inner (GRU) (")
    assert told[0].filename == __file__


@pytest.mark.filterwarnings("ignore")
def test_the_try_that_fails_draws_no_random_numbers():
    """A run that goes on from a checkpoint tries again, and must not differ for it."""

    def draws(steps):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Dropout(0.5), Branches())
        clipper = gclip.Clipper(model, "per_sample")
        for _ in range(steps):
            clipper.backward(randn(3), LABELS)
        return torch.rand(()).item()

    drawn = draws(1)
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Dropout(0.5), Branches())
    for one in randn(3):
        plain(one[None])
    assert drawn == torch.rand(()).item()


def test_dropout_is_drawn_for_each_example():
    model = nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.5))
    torch.manual_seed(0)
    same = torch.ones(64, 3)
    grads, _ = gclip.per_sample_gradients(model, same, torch.zeros(64, dtype=torch.long))
    assert 3 <= len(torch.unique(grads["0.weight"], dim=0)) <= 4


class TestFrozen:
    def test_they_do_not_count(self):
        """As if the frozen part were no parameter at all, in norms, sizes and weights' norms."""
        for spec in (
            "norm(max_norm=0.01, side=sample)",
            "agc(clip_factor=0.01, scope=global, side=sample)",
            "block_rms(max_rms=1e-4, scope=global, side=sample)",
            "average_norm(max_average=1e-4, scope=global, side=sample)",
        ):
            torch.manual_seed(0)
            model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
            other = copy.deepcopy(model)
            model[0].requires_grad_(False)
            whole = gclip.Clipper(model, spec)
            part = gclip.Clipper(
                [(n, p) for n, p in other.named_parameters() if n.startswith("1")],
                spec,
                model=other,
            )
            for clipper in (whole, part):
                clipper.backward(randn(3), LABELS)
            assert torch.equal(whole.step().limit, part.step().limit)
            assert model[0].weight.grad is None
            assert torch.equal(model[1].weight.grad, other[1].weight.grad)
            assert whole.report.clipped.all()

    @pytest.mark.parametrize("scope", ["global", "layer", "tensor", "unit"])
    def test_they_come_and_go(self, scope):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
        clipper = gclip.Clipper(model, f"quantile_tracking(start=0.05, scope={scope}, side=sample)")
        limits = []
        for frozen in ((), (0,), (0, 1), (), (2, 3)):
            params = list(model.parameters())
            for place, param in enumerate(params):
                param.requires_grad_(place not in frozen)
                param.grad = None
            clipper.backward(randn(3), LABELS)
            report = clipper.step()
            limits.append(report.limit[0].clone())
            for place, param in enumerate(params):
                assert (param.grad is None) == (place in frozen)
        if scope == "tensor":
            limit = clipper.state_dict()["parts"][-1]["memory"]["limit"]
            assert limit[0] == pytest.approx(0.05 * math.exp(0.1 * 3), rel=1e-5)  # three steps
            assert limit[2] == pytest.approx(0.05 * math.exp(0.1 * 4), rel=1e-5)  # four

    def test_of_any_dtype(self):
        torch.manual_seed(0)
        model = nn.Linear(3, 2)
        model.codes = nn.Parameter(torch.ones(5, dtype=torch.int8), requires_grad=False)
        for spec in ("agc(side=sample)", "agc(scope=global, side=sample)"):
            clipper = gclip.Clipper(model, spec)
            clipper.backward(randn(3), LABELS)
            assert clipper.step().clipped.any()
            assert model.codes.grad is None

    def test_all_frozen(self):
        model = nn.Linear(3, 2).requires_grad_(False)
        with pytest.raises(UsageError, match="all are frozen"):
            gclip.Clipper(model, "per_sample").backward(randn(3), LABELS)


class TestMagnitudes:
    @pytest.mark.parametrize("scope", ["global", "layer", "tensor", "unit"])
    @pytest.mark.parametrize("scale", [1e-30, 1e-22, 1e30, 3e38])
    def test_float32_sums_of_squares_do_not_matter(self, scope, scale):
        """Overflow at 1e19 and beyond, underflow below 1e-19."""
        model = nn.Linear(2, 1, bias=False)
        x = torch.tensor([[0.6, 0.8], [0.0, 0.0], [0.8, -0.6]]) * scale
        limit = 1e-35
        clipper = gclip.Clipper(model, f"norm(max_norm={limit}, scope={scope}, side=sample)")
        clipper.backward(x, torch.zeros(3), lambda o, t: o.sum())
        report = clipper.step()
        assert report.norm.flatten().tolist() == pytest.approx([scale, 0, scale], rel=1e-6)
        assert report.finite
        assert not report.skipped
        want = torch.tensor([[1.4, 0.2]]) * limit / 3
        torch.testing.assert_close(model.weight.grad, want, rtol=1e-5, atol=0)

    def test_a_norm_that_float32_does_not_hold(self):
        model = nn.Linear(16, 1, bias=False)
        x = torch.full((2, 16), 3e38)
        clipper = gclip.Clipper(model, "norm(max_norm=1, side=sample)")
        clipper.backward(x, torch.zeros(2), lambda o, t: o.clamp(-1, 1).sum() * 0 + _linear(o))
        report = clipper.step()
        assert report.norm.flatten().tolist() == pytest.approx([1.2e39] * 2, rel=1e-6)
        torch.testing.assert_close(model.weight.grad, torch.full((1, 16), 0.25))

    @pytest.mark.parametrize("scale", [1e-200, 1e-60, 1e100, 1e200])
    def test_float64(self, scale):
        model = nn.Linear(2, 1, bias=False).double()
        x = torch.tensor([[0.6, 0.8], [0.8, -0.6]], dtype=torch.float64) * scale
        limit = min(scale / 2, 1.0)
        clipper = gclip.Clipper(model, f"norm(max_norm={limit}, side=sample)")
        loss = clipper.backward(x, torch.zeros(2), lambda o, t: o.sum())
        report = clipper.step()
        assert loss.dtype == torch.float64
        assert report.norm.flatten().tolist() == pytest.approx([scale] * 2, rel=1e-12)
        want = torch.tensor([[1.4, 0.2]], dtype=torch.float64) * limit / 2
        torch.testing.assert_close(model.weight.grad, want, rtol=1e-12, atol=0)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_models(self, dtype):
        torch.manual_seed(0)
        model = nn.Linear(3, 2).to(dtype)
        x = randn(3).to(dtype)
        want = clipped_mean(looped(model, x, LABELS), 0.3)
        clipper = gclip.Clipper(model, "per_sample(max_norm=0.3)")
        clipper.backward(x, LABELS)
        report = clipper.step()
        assert report.norm.dtype == torch.float32
        eps = torch.finfo(dtype).eps
        for name, param in model.named_parameters():
            assert param.grad.dtype == dtype
            torch.testing.assert_close(param.grad.double(), want[name], rtol=4 * eps, atol=eps / 8)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    def test_the_default_dtype_changes_nothing(self, dtype):
        def run():
            torch.manual_seed(0)
            model = nn.Linear(3, 2, dtype=torch.float32)
            clipper = gclip.Clipper(model, "quantile_tracking(start=0.1, side=sample)")
            for _ in range(3):
                model.zero_grad()
                loss = clipper.backward(x, LABELS)
                report = clipper.step()
            return [loss, report.norm, report.limit, model.weight.grad]

        x = randn(3)
        want = run()
        torch.set_default_dtype(dtype)
        try:
            got = run()
        finally:
            torch.set_default_dtype(torch.float32)
        for mine, theirs in zip(got, want, strict=True):
            assert mine.dtype == theirs.dtype
            assert torch.equal(mine, theirs)


def _linear(answer):
    return answer.sum() * torch.ones(())


class TestNotFinite:
    """One example of four has a gradient that is inf or NaN."""

    X = torch.tensor([[3.0, 4.0], [1.0, 0.0], [0.0, 0.5], [0.0, 1.0]])

    def run(self, spec, bad, policy):
        model = nn.Linear(2, 1, bias=False)
        x = self.X.clone()
        x[0, 0] = bad
        clipper = gclip.Clipper(model, spec, nonfinite=policy)
        clipper.backward(x, torch.zeros(4), lambda o, t: o.sum())
        return clipper, model

    @pytest.mark.parametrize("bad", [math.inf, math.nan])
    @pytest.mark.parametrize("rule", ["scale", "normalize", "soft"])
    def test_the_step(self, bad, rule):
        family = {"scale": "norm", "normalize": "normalized", "soft": "soft"}[rule]
        clipper, model = self.run(f"{family}(side=sample)", bad, "skip")
        report = clipper.step()
        assert report.skipped
        assert not report.finite
        assert not model.weight.grad.any()
        clipper, model = self.run(f"{family}(side=sample)", bad, "raise")
        with pytest.raises(FloatingPointError, match="weight"):
            clipper.step()
        clipper, model = self.run(f"{family}(side=sample)", bad, "keep")
        assert not clipper.step().skipped
        assert not model.weight.grad[0, 0].isfinite()
        assert model.weight.grad[0, 1].isfinite() or math.isnan(bad)

    def test_an_infinite_example_beyond_the_limit_is_left_out(self):
        for policy in ("skip", "raise", "keep"):
            clipper, model = self.run(
                "norm(max_norm=0.9, rule=skip, side=sample)", math.inf, policy
            )
            report = clipper.step()
            assert report.finite
            assert model.weight.grad.tolist() == [[0.0, 0.125]]  # the third alone is within

    def test_a_nan_is_beyond_no_limit(self):
        clipper, _ = self.run("norm(max_norm=0.9, rule=skip, side=sample)", math.nan, "skip")
        assert clipper.step().skipped

    @pytest.mark.parametrize("bad", [math.inf, math.nan])
    @pytest.mark.parametrize("policy", ["skip", "keep"])
    def test_memory_does_not_learn_from_the_step(self, bad, policy):
        clipper, _ = self.run("quantile_tracking(side=sample)", bad, policy)
        clipper.step()
        assert clipper.state_dict()["parts"][-1]["memory"]["limit"].tolist() == [1.0]

    def test_nor_from_zeros(self):
        model = nn.Linear(2, 1, bias=False)
        clipper = gclip.Clipper(model, "quantile_tracking(side=sample)")
        clipper.backward(torch.zeros(4, 2), torch.zeros(4), lambda o, t: o.sum())
        clipper.step()
        assert clipper.state_dict()["parts"][-1]["memory"]["limit"].tolist() == [1.0]


class TestLosses:
    def test_reductions_of_one_are_the_same(self):
        torch.manual_seed(0)
        model = nn.Linear(3, 2)
        found = [
            gclip.per_sample_gradients(model, randn(3), LABELS, nn.CrossEntropyLoss(reduction=r))
            for r in ("mean", "sum", "none")
        ]
        for grads, losses in found[1:]:
            assert torch.equal(losses, found[0][1])
            assert torch.equal(grads["weight"], found[0][0]["weight"])

    @pytest.mark.parametrize(
        ("loss", "targets"),
        [
            (F.mse_loss, randn(2)),
            (F.binary_cross_entropy_with_logits, (randn(2) > 0).float()),
            (F.cross_entropy, (3 * randn(2)).softmax(1)),
            (nn.CrossEntropyLoss(weight=torch.tensor([3.0, 1.0]), reduction="sum"), LABELS),
        ],
    )
    def test_targets_of_any_kind(self, loss, targets):
        torch.manual_seed(0)
        model = nn.Linear(3, 2)
        want = clipped_mean(looped(model, randn(3), targets, loss), 0.2)
        clipper = gclip.Clipper(model, "per_sample(max_norm=0.2)")
        clipper.backward(randn(3), targets, loss)
        assert clipper.step().clipped.any()
        torch.testing.assert_close(model.weight.grad.double(), want["weight"], rtol=1e-5, atol=1e-7)

    def test_mistakes_are_told(self):
        model = nn.Linear(3, 2)
        x, weight = randn(3), torch.tensor([3.0, 1.0])
        none = partial(F.mse_loss, reduction="none")
        for loss, targets, match in (
            (none, randn(2), r"must be one number, but loss\(model\(x\), y\) gives \(1, 2\)"),
            (nn.CrossEntropyLoss(weight=weight), LABELS, "class weights cancel"),
            (partial(F.cross_entropy, weight=weight), LABELS, "class weights cancel"),
            (F.cross_entropy, LABELS[:3], "there are 5 inputs, but 3 targets"),
            (F.cross_entropy, LABELS + 7, "fails on a single example.*out of bounds"),
            (F.cross_entropy, LABELS.tolist(), "the targets are of type list"),
            (F.cross_entropy, LABELS[0], "the targets must be"),
        ):
            with pytest.raises(UsageError, match=match):
                gclip.Clipper(model, "per_sample").backward(x, targets, loss)
        with pytest.raises(UsageError, match="fails on a single example, a batch of one"):
            gclip.per_sample_gradients(model, randn(4), LABELS)
        assert model.weight.grad is None


def test_modules_that_are_refused():
    lazy = nn.Sequential(nn.LazyLinear(2))
    with pytest.raises(UsageError, match="lazy module has no shape yet"):
        gclip.per_sample_gradients(lazy, randn(3), LABELS)
    stateless = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2, track_running_stats=False)).eval()
    with pytest.raises(UsageError, match="1 is a batch norm without running statistics"):
        gclip.per_sample_gradients(stateless, randn(3), LABELS)
    with pytest.raises(UsageError, match=r"the model \(DataParallel\) does not average"):
        gclip.Clipper(nn.DataParallel(nn.Linear(3, 2)), "per_sample")


def test_a_replaced_head_is_told():
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    clipper = gclip.Clipper(model.named_parameters(), "per_sample", model=model)
    model[1] = nn.Linear(4, 2)
    with pytest.raises(UsageError, match=r"1\.weight, 1\.bias of this clipper and the model's"):
        clipper.backward(randn(3), LABELS)


def test_what_a_loop_throws_away_is_forgotten():
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    clipper = gclip.Clipper(model, "quantile_tracking(start=0.1, side=sample)")
    clipper.backward(randn(3) * 9, LABELS)
    model.zero_grad()
    clipper.backward(randn(3)[:2], LABELS[:2])
    assert clipper.step().norm.shape == (2, 1)


class TestQuantileTracking:
    """Andrew et al. (2021): C ← C · exp(−η(b̄ − γ)), b̄ the share of examples within C."""

    def limits(self, batches, calls, eta=0.3, gamma=0.6, start=1.0, **more):
        """The limits at the start of each step, and at the end; examples have chosen norms."""
        model = nn.Linear(1, 1, bias=False)
        spec = (
            f"quantile_tracking(eta={eta}, quantile={gamma}, start={start}, side=sample"
            + "".join(f", {k}={v}" for k, v in more.items())
            + ")"
        )
        clipper, found = gclip.Clipper(model, spec), []
        for norms in batches:
            model.zero_grad()
            x = torch.tensor(norms).view(-1, 1)
            for part in x.split(-(-len(x) // calls)):
                clipper.backward(
                    part,
                    torch.zeros(len(part)),
                    lambda o, t: o.sum(),
                    scale=len(part) / len(x),
                    chunk=2,
                )
            report = clipper.step()
            found.append(float(report.limit[0, 0]))
            mean = sum(min(n, found[-1]) for n in norms) / len(norms)
            assert model.weight.grad.item() == pytest.approx(mean, rel=1e-5)
        return [*found, clipper.state_dict()["parts"][-1]["memory"]["limit"].item()]

    BATCHES = ([0.5, 2.0, 3.0, 0.9, 1.1], [0.2, 0.3, 5.0, 8.0, 1.0], [0.1, 0.1, 0.1, 0.1, 4.0])

    @pytest.mark.parametrize("calls", [1, 2, 5])
    def test_by_hand(self, calls):
        # Within: 2 of 5, then 2 of 5 (C = 1.0618…, so that 1.0 is within: 3 of 5), then 4 of 5.
        want = [1.0, math.exp(-0.3 * (0.4 - 0.6))]
        want.append(want[-1] * math.exp(-0.3 * (0.6 - 0.6)))
        want.append(want[-1] * math.exp(-0.3 * (0.8 - 0.6)))
        assert self.limits(self.BATCHES, calls) == pytest.approx(want, rel=1e-6)

    @pytest.mark.parametrize("calls", [1, 3])
    def test_long_runs_by_numpy(self, calls):
        norms = np.random.default_rng(0).lognormal(size=(30, 7)).astype(np.float32)
        limit, want = 0.4, []
        for row in norms.astype(np.float64):
            want.append(limit)
            limit *= np.exp(-0.25 * (np.mean(row <= limit) - 0.8))
        found = self.limits(norms.tolist(), calls, eta=0.25, gamma=0.8, start=0.4)
        np.testing.assert_allclose(found, [*want, limit], rtol=1e-5)

    def test_arithmetic(self):
        want = [1.0, 1.06, 1.06, 1.0]
        assert self.limits(self.BATCHES, 1, update="arithmetic") == pytest.approx(want, rel=1e-6)

    def test_it_settles_at_the_quantile(self):
        generator = torch.Generator().manual_seed(0)
        batches = [torch.rand(50, generator=generator).tolist() for _ in range(60)]
        last = self.limits(batches, 2, eta=0.2, gamma=0.7)[-1]
        assert last == pytest.approx(0.7, abs=0.05)

    def test_the_state_goes_on(self):
        torch.manual_seed(0)
        model = nn.Linear(3, 2)
        spec = "quantile_tracking(start=0.1, scope=tensor, side=sample)"
        clipper = gclip.Clipper(model, spec)
        for _ in range(4):
            other = gclip.Clipper(model, spec)
            other.load_state_dict(clipper.state_dict())
            limits = []
            for each in (clipper, other):
                model.zero_grad()
                each.backward(randn(3), LABELS)
                limits.append(each.step().limit)
            assert torch.equal(*limits)
        assert limits[0][0, 0] == pytest.approx(0.1 * math.exp(0.1 * 3), rel=1e-5)


BY_EXAMPLE = [name for name in gclip.names() if "sample" in gclip.get(name).sides]


@pytest.mark.parametrize("name", BY_EXAMPLE)
@pytest.mark.parametrize("scope", ["global", "tensor"])
def test_batches_and_chunks_of_a_step_are_one(name, scope):
    """Every strategy decides on an example, and learns of a step, whatever comes beside it."""
    assert len(BY_EXAMPLE) >= 10
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    whole, split = (gclip.Clipper(model, f"{name}(side=sample, scope={scope})") for _ in range(2))
    for step in range(4):
        x = randn(3) * (step + 1)
        model.zero_grad()
        whole.backward(x, LABELS)
        first = whole.step()
        wanted = [p.grad for p in model.parameters()]
        model.zero_grad()
        split.backward(x[:2], LABELS[:2], scale=2 / N)
        split.backward(x[2:], LABELS[2:], scale=3 / N, chunk=2)
        second = split.step()
        for a, b in (
            (first.norm, second.norm),
            (first.limit, second.limit),
            (first.clipped_norm, second.clipped_norm),
            *zip(wanted, [p.grad for p in model.parameters()], strict=True),
        ):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)
    mine, theirs = (c.state_dict()["parts"][-1]["memory"] for c in (whole, split))
    assert set(mine) == set(theirs)
    for key, value in mine.items():
        assert value.shape == (1 if scope == "global" else 2,)
        torch.testing.assert_close(value, theirs[key], rtol=1e-6, atol=0)
    rows = [c.record.arrays() for c in (whole, split)]
    for column, values in rows[0].items():
        assert values == pytest.approx(rows[1][column], rel=1e-5, nan_ok=True)


def test_memory_that_keeps_the_examples_apart_is_told():
    from dataclasses import dataclass

    @dataclass(frozen=True, kw_only=True)
    class Last(gclip.Strategy):
        """Limit each norm to the last."""

        sides = ("sample",)
        side: gclip.Side = "sample"

        def remember(self, like):
            return {"last": torch.full_like(like, math.inf)}

        def limit(self, seen, memory):
            return memory["last"]

        def learn(self, seen, clipped_norm, memory):
            return {"last": seen.norm}

    clipper = gclip.Clipper(nn.Linear(3, 2), Last())
    clipper.backward(randn(3), LABELS)
    with pytest.raises(UsageError, match="must reduce over the examples"):
        clipper.step()
