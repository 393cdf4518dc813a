"""float64, half precision, complex numbers, sizes that sums of squares cannot hold."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from torch import nn

import gclip
from gclip.core.fields import fields_of

SCOPES = ("global", "layer", "tensor", "unit")
ORDERS = (1.0, 2.0, 3.0, 10.0, math.inf)
NAMES = [n for n in gclip.names() if gclip.get(n).sides != ("sample",)]
SINGLE, DOUBLE = torch.float32, torch.float64


@pytest.fixture
def default_dtype() -> Iterator[None]:
    """torch's default dtype is what it was, after the test."""
    before = torch.get_default_dtype()
    yield
    torch.set_default_dtype(before)


def strategies() -> Iterator[gclip.Strategy]:
    """Every registered strategy in every scope, on the gradient or on the update."""
    for name in NAMES:
        cls = gclip.get(name)
        side = "gradient" if "gradient" in cls.sides else "update"
        for scope in cls.scopes:
            yield gclip.create(name, side=side, scope=scope)


class Loop:
    """A tiny model in training, whose gradients are given. With a `phase` all is complex."""

    def __init__(self, strategy, phase: complex | None = None, **how) -> None:
        chance = torch.Generator().manual_seed(0)
        self.phase = phase
        self.params = nn.ParameterDict()
        for name, shape in (("a", (3, 2)), ("b", (3,))):
            weight = torch.randn(shape, generator=chance, dtype=SINGLE)
            self.params[name] = nn.Parameter(weight if phase is None else weight.cdouble() * phase)
        self.optimizer = torch.optim.SGD(self.params.values(), lr=0.1)
        self.handle = gclip.attach(
            self.optimizer, strategy, model=self.params, total_steps=100, **how
        )

    def step(self, index: int, dtype: torch.dtype, size: float = 1.0) -> list[torch.Tensor]:
        """What the step left of the gradients, or made of the parameters, in float64."""
        chance = torch.Generator().manual_seed(100 + index)
        spike = 30.0 if index % 7 == 6 else 1.0
        if self.phase is None:
            self.params.to(dtype)
        for param in self.params.values():
            made = torch.randn(param.shape, generator=chance, dtype=DOUBLE) * spike * size
            param.grad = made.to(dtype) if self.phase is None else made * self.phase
        self.optimizer.step()
        on_update = self.handle.clipper.on_updates
        left = [p.detach() if on_update else p.grad for p in self.params.values()]
        return [each.double() if self.phase is None else each.clone() for each in left]


class TestNormsOfFloat64:
    @pytest.mark.parametrize("scope", SCOPES)
    @pytest.mark.parametrize("p", ORDERS)
    @pytest.mark.parametrize("size", [1e-250, 1e-60, 1e-3, 1.0, 1e100, 1e250])
    def test_of_every_size(self, scope: str, p: float, size: float) -> None:
        a = torch.tensor([[3.0, 4.0], [1.0, -2.0]], dtype=DOUBLE) * size
        param = nn.Parameter(torch.zeros_like(a))
        param.grad = a.clone()
        strategy = gclip.create("norm", max_norm=size / 10, p=p, scope=scope)
        report = gclip.Clipper({"m.a": param}.items(), strategy).step()
        rows = a / size if scope == "unit" else (a / size).view(1, -1)
        norms = torch.linalg.vector_norm(rows, p, dim=1)
        assert report.norm.dtype == DOUBLE
        assert not report.skipped
        torch.testing.assert_close(report.norm, norms * size, rtol=1e-13, atol=0.0)
        want = (rows / norms.unsqueeze(1)).view(2, 2) * (size / 10)
        torch.testing.assert_close(param.grad, want, rtol=1e-13, atol=0.0)

    @pytest.mark.parametrize("scope", SCOPES)
    def test_of_float32_beside_float64(self, scope: str) -> None:
        single = nn.Parameter(torch.zeros(2, dtype=SINGLE))
        double = nn.Parameter(torch.zeros(2, dtype=DOUBLE))
        single.grad = torch.tensor([3.0, 4.0], dtype=SINGLE)
        double.grad = torch.tensor([3e100, 4e100], dtype=DOUBLE)
        named = {"m.a": single, "m.b": double}.items()
        report = gclip.Clipper(named, gclip.create("norm", scope=scope)).step()
        assert report.norm.max().item() == pytest.approx(5e100, rel=1e-14)
        assert double.grad.tolist() == pytest.approx([0.6, 0.8], rel=1e-14)
        alone = scope in ("tensor", "unit")
        assert single.grad.tolist() == pytest.approx([0.6, 0.8] if alone else [0.0, 0.0], rel=1e-6)

    def test_memory_stays_float64_while_those_gradients_are_missing(self) -> None:
        single = nn.Parameter(torch.zeros(2, dtype=SINGLE))
        double = nn.Parameter(torch.zeros(2, dtype=DOUBLE))
        clipper = gclip.Clipper([single, double], "ema_ratio(ratio=1.05)")
        double.grad = torch.tensor([3e100, 4e100], dtype=DOUBLE)
        for _ in range(2):
            single.grad = torch.tensor([3.0, 4.0], dtype=SINGLE)
            clipper.step()
            double.grad = None
        double.grad = torch.tensor([3e150, 4e150], dtype=DOUBLE)
        clipper.step()
        assert double.grad.tolist() == pytest.approx([1.05 * 3e100, 1.05 * 4e100], rel=1e-13)

    def test_the_record_is_float64_too(self) -> None:
        param = nn.Parameter(torch.zeros(2, dtype=DOUBLE))
        param.grad = torch.tensor([3e100, 4e100], dtype=DOUBLE)
        clipper = gclip.Clipper([param], "norm(max_norm=1e99)")
        clipper.step()
        rows = clipper.record.arrays()
        assert rows["norm"].tolist() == pytest.approx([5e100])
        assert rows["clipped_norm"].tolist() == pytest.approx([1e99])


class TestSumsThatFloat32CannotHold:
    @pytest.mark.parametrize("scope", SCOPES)
    @pytest.mark.parametrize("p", ORDERS)
    @pytest.mark.parametrize("size", [1e-36, 1e-30, 1e-20, 1e-10, 1e20, 1e37])
    def test_are_made_again(self, scope: str, p: float, size: float) -> None:
        a = torch.tensor([[3.0, 4.0], [1.0, -2.0]], dtype=SINGLE) * size
        param = nn.Parameter(torch.zeros_like(a))
        param.grad = a.clone()
        report = gclip.Clipper(
            {"m.a": param}.items(),
            gclip.create("norm", rule="clamp" if math.isinf(p) else "normalize", p=p, scope=scope),
        ).step()
        rows = a.double() if scope == "unit" else a.double().view(1, -1)
        top = rows.abs().amax(dim=1, keepdim=True)
        norms = torch.linalg.vector_norm(rows / top, p, dim=1) * top[:, 0]
        torch.testing.assert_close(report.norm.double(), norms, rtol=3e-6, atol=0.0)
        if not math.isinf(p):
            want = (rows / norms.unsqueeze(1)).view(2, 2)
            torch.testing.assert_close(param.grad.double(), want, rtol=1e-5, atol=0.0)

    def test_a_tiny_unit_beside_large_and_dead_ones(self) -> None:
        param = nn.Parameter(torch.zeros(4, 2))
        given = [[3e-30, 4e-30], [0.0, 0.0], [3.0, 4.0], [3e25, 4e25]]
        param.grad = torch.tensor(given)
        report = gclip.Clipper([param], "norm(rule=normalize, scope=unit)").step()
        assert report.norm.tolist() == pytest.approx([5e-30, 0.0, 5.0, 5e25], rel=1e-6)
        for row, want in zip(param.grad.tolist(), [1, 0, 1, 1], strict=True):
            assert row == pytest.approx([0.6 * want, 0.8 * want], rel=1e-6)

    def test_a_finite_gradient_whose_norm_is_beyond_float32(self) -> None:
        most = torch.finfo(SINGLE).max
        clip = {"scope": "tensor", "ratio": 2.0}
        param, other = nn.Parameter(torch.zeros(4)), nn.Parameter(torch.zeros(2))
        clipper = gclip.Clipper([param, other], gclip.create("ema_ratio", **clip))
        for size in (1.0, most, 1.0):
            param.grad = torch.full((4,), size)
            other.grad = torch.tensor([3.0, 4.0])
            report = clipper.step()
            assert report.finite
            assert not report.skipped
            if size == most:
                assert report.norm[0].item() == pytest.approx(2 * most, rel=1e-6)
                assert param.grad.tolist() == pytest.approx([2.0] * 4, rel=1e-6)
            assert other.grad.tolist() == [3.0, 4.0]
        assert report.norm.dtype == SINGLE

    def test_a_norm_of_all_is_not_lost_among_its_groups(self) -> None:
        # adagc clips by the norm of all groups while it warms up.
        params = [nn.Parameter(torch.zeros(2)) for _ in range(2)]
        for param in params:
            param.grad = torch.tensor([3e20, 4e20])
        gclip.Clipper(params, "adagc").step()
        for param in params:
            assert param.grad.tolist() == pytest.approx([0.6 / 2**0.5, 0.8 / 2**0.5], rel=1e-5)

    def test_the_record_of_a_clamp(self) -> None:
        param = nn.Parameter(torch.zeros(2))
        param.grad = torch.tensor([3e25, 4e25])
        clipper = gclip.Clipper([param], "value(clip_value=3e25)")
        clipper.step()
        rows = clipper.record.arrays()
        assert rows["norm"].tolist() == pytest.approx([5e25], rel=1e-6)
        assert rows["clipped_norm"].tolist() == pytest.approx([18**0.5 * 1e25], rel=1e-6)


class TestAnotherDtypeInMidTraining:
    @pytest.mark.parametrize("strategy", [*strategies()], ids=str)
    def test_changes_nothing_but_rounding(self, strategy: gclip.Strategy) -> None:
        exact, mixed = Loop(strategy), Loop(strategy)
        for index in range(36):
            dtype = DOUBLE if 12 <= index < 24 else SINGLE
            want, got = exact.step(index, DOUBLE), mixed.step(index, dtype)
            for mine, theirs in zip(got, want, strict=True):
                torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-5)

    @pytest.mark.parametrize("name", ["percentile", "zclip", "spam", "median_window"])
    def test_a_state_of_float32_goes_on_in_float64(self, name: str) -> None:
        first, second, exact = (Loop(gclip.create(name)) for _ in range(3))
        for index in range(30):
            first.step(index, SINGLE), exact.step(index, DOUBLE)
        second.handle.clipper.load_state_dict(first.handle.clipper.state_dict())
        for index in range(30, 40):
            got, want = second.step(index, DOUBLE), exact.step(index, DOUBLE)
            for mine, theirs in zip(got, want, strict=True):
                torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)

    def test_half_precision_after_float32(self) -> None:
        loop = Loop(gclip.create("percentile", p=50))
        for index in range(5):
            loop.step(index, SINGLE)
        left = loop.step(5, torch.float16)
        assert all(torch.isfinite(each).all() for each in left)
        assert loop.handle.report.norm.dtype == SINGLE


class TestLimitsThatOnlyFloat64Holds:
    @pytest.mark.parametrize(
        "spec",
        [
            "norm(max_norm=1e300)",
            "norm(max_norm=1e300, rule=soft)",
            "norm(max_norm=1e300, rule=normalize, scope=unit)",
            "norm(max_norm=1e300, rule=skip)",
            "norm(max_norm=1e300, rule=clamp, scope=tensor)",
            "norm(max_norm=1e300, p=inf, scope=layer)",
            "value(clip_value=1e300)",
            "value(clip_value=1e300, lower=-1e300)",
            "agc(clip_factor=1e300)",
            "block_rms(max_rms=1e300)",
            "average_norm(max_average=1e300)",
            "delta(max_norm=1e300)",
            "random(max_norm=1e300)",
            "zclip(max_norm=1e300)",
            "quantile_tracking(start=1e300, highest=1e305)",
            "adagc(absolute=1e300, relative=1e300)",
            "spectral(threshold=1e300)",
            "spam(threshold=1e300, warmup=0)",
            "automatic(max_norm=1e300, side=gradient)",
            "normalized(target=1e300, rule=scale)",
            "soft(max_norm=1e300)",
            "norm(max_norm=linear(1e300, 1e299, steps=5))",
            "value(clip_value=exponential(1e299, 1e300, steps=5))",
        ],
    )
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, SINGLE])
    @pytest.mark.parametrize("record", [True, False])
    def test_never_clip_in_float32(self, spec: str, dtype: torch.dtype, record: bool) -> None:
        named = {"m.a": (3, 2), "m.b": (3,), "m.zero": (2,), "m.empty": (0,)}
        params = {
            name: nn.Parameter(torch.ones(shape, dtype=dtype)) for name, shape in named.items()
        }
        nonfinite = "skip" if record else "keep"
        clipper = gclip.Clipper(params.items(), spec, record=record, nonfinite=nonfinite)
        for step in range(3):
            given = {n: (p.detach() * (step + 2)) for n, p in params.items()}
            given["m.zero"] = given["m.zero"] * 0
            for name, param in params.items():
                param.grad = given[name].clone()
            report = clipper.step()
            assert all(torch.equal(p.grad, given[n]) for n, p in params.items())
            if record and "spam" not in spec and "spectral" not in spec:
                assert not report.clipped.any()
                assert not torch.isnan(report.limit).any()
                assert torch.isfinite(report.clipped_norm).all()

    def test_hold_in_float64(self) -> None:
        for spec in ("norm(max_norm=1e300)", "value(clip_value=3e300)"):
            param = nn.Parameter(torch.zeros(2, dtype=DOUBLE))
            param.grad = torch.tensor([3e305, 0.0], dtype=DOUBLE)
            gclip.Clipper([param], spec).step()
            want = 1e300 if "norm" in spec else 3e300
            assert param.grad.tolist() == pytest.approx([want, 0.0], rel=1e-14)

    def test_a_schedule_from_beyond_binds_at_its_end(self) -> None:
        param = nn.Parameter(torch.zeros(2))
        clipper = gclip.Clipper([param], "norm(max_norm=linear(1e300, 1, steps=3))")
        for _ in range(3):
            param.grad = torch.tensor([3.0, 4.0])
            clipper.step()
        assert param.grad.tolist() == pytest.approx([0.6, 0.8])

    @pytest.mark.parametrize("name", NAMES)
    def test_of_every_number_of_every_strategy(self, name: str) -> None:
        cls = gclip.get(name)
        side = {"side": "gradient"} if "gradient" in cls.sides else {}
        for info in fields_of(cls):
            if info.type is not float:
                continue
            try:
                strategy = gclip.create(name, **{info.name: 1e300}, **side)
            except gclip.UsageError:
                continue  # it must be smaller
            loop = Loop(strategy)
            for index in range(30):
                left = loop.step(index, SINGLE)
                assert all(torch.isfinite(each).all() for each in left), info.name

    def test_a_bound_beyond_half_precision(self) -> None:
        param = nn.Parameter(torch.zeros(2, dtype=torch.float16))
        for how in ({}, {"record": False, "nonfinite": "keep"}):
            param.grad = torch.tensor([60_000.0, 1.0], dtype=torch.float16)
            gclip.Clipper([param], "value(clip_value=1e5)", **how).step()
            assert param.grad.tolist() == [60_000.0, 1.0]


class TestDefaultDtype:
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, DOUBLE], ids=str)
    @pytest.mark.parametrize(
        "spec",
        [
            *("agc", "norm(scope=unit)", "norm(scope=layer)", "norm", "zclip(scope=tensor)"),
            *("value(clip_value=0.5)", "percentile(rule=clamp, scope=tensor)", "random", "larc"),
            *("stable_spam", "sigma_skip(start=2, window=4)", "norm(p=1, scope=tensor)"),
        ],
    )
    def test_changes_nothing(self, dtype: torch.dtype, spec: str, default_dtype: None) -> None:
        def run() -> tuple[list[torch.Tensor], list[torch.Tensor], torch.Tensor]:
            loop = Loop(gclip.parse(spec), record=True)
            left, norms = [], []
            for index in range(8):
                left += loop.step(index, SINGLE, 70_000.0)
                loop.params["b"].grad = None
                norms += [loop.handle.report.norm, loop.handle.report.limit]
            rows = loop.handle.record.arrays()
            return left, norms, torch.tensor([rows[key].tolist() for key in rows], dtype=DOUBLE)

        want = run()
        torch.set_default_dtype(dtype)
        got = run()
        for mine, theirs in zip(
            (*got[0], *got[1], got[2]), (*want[0], *want[1], want[2]), strict=True
        ):
            assert mine.dtype == theirs.dtype
            torch.testing.assert_close(mine, theirs, rtol=0.0, atol=0.0, equal_nan=True)

    @pytest.mark.parametrize("dtype", [torch.float16, DOUBLE], ids=str)
    def test_changes_nothing_for_a_survey(self, dtype: torch.dtype, default_dtype: None) -> None:
        def run() -> str:
            loop = Loop(gclip.create("none"))
            survey = gclip.Survey(loop.params, loop.optimizer)
            for index in range(20):
                loop.step(index, SINGLE)
                survey.watch()
            return str(survey.suggest())

        want = run()
        torch.set_default_dtype(dtype)
        assert run() == want


class TestComplexGradients:
    def test_are_clamped_by_modulus(self) -> None:
        for spec in ("value(clip_value=1)", "norm(max_norm=1, rule=clamp)", "norm(scope=element)"):
            for how in ({}, {"record": False, "nonfinite": "keep"}):
                param = nn.Parameter(torch.zeros(4, dtype=torch.complex64))
                given = torch.tensor([3 + 4j, 0.0, 0.1 - 0.2j, -2j])
                param.grad = given.clone()
                gclip.Clipper([param], spec, **how).step()
                want = torch.tensor([0.6 + 0.8j, 0.0, 0.1 - 0.2j, -1j])
                torch.testing.assert_close(param.grad, want)
                assert torch.equal(param.grad[1:3], given[1:3])

    @pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
    @pytest.mark.parametrize("scope", SCOPES)
    @pytest.mark.parametrize("p", ORDERS)
    def test_have_the_norm_of_their_moduli(self, dtype, scope: str, p: float) -> None:
        given = torch.tensor([[3 + 4j, 1j], [0.5, -1 - 1j]], dtype=dtype)
        param = nn.Parameter(torch.zeros_like(given))
        param.grad = given.clone()
        strategy = gclip.create("norm", max_norm=0.1, p=p, scope=scope)
        report = gclip.Clipper({"m.a": param}.items(), strategy).step()
        size = given.abs().double()
        rows = size if scope == "unit" else size.view(1, -1)
        want = torch.linalg.vector_norm(rows, p, dim=1)
        torch.testing.assert_close(report.norm.double(), want, rtol=1e-6, atol=0.0)
        factor = 0.1 / want.view(-1, 1)
        torch.testing.assert_close(param.grad, (given * factor).to(dtype), rtol=1e-6, atol=0.0)

    @pytest.mark.parametrize("name", NAMES)
    def test_turned_by_a_phase_are_clipped_as_real_ones(self, name: str) -> None:
        cls = gclip.get(name)
        side = {"side": "gradient"} if "gradient" in cls.sides else {}
        real = Loop(gclip.create(name, **side))
        turned = Loop(gclip.create(name, **side), phase=0.6 + 0.8j)
        for index in range(25):
            want, got = real.step(index, DOUBLE), turned.step(index, DOUBLE)
            for mine, theirs in zip(got, want, strict=True):
                torch.testing.assert_close(mine, theirs * (0.6 + 0.8j), rtol=1e-9, atol=1e-12)

    def test_have_no_smallest_element(self) -> None:
        param = nn.Parameter(torch.zeros(2, dtype=torch.complex64))
        for how in ({}, {"record": False, "nonfinite": "keep"}):
            param.grad = torch.tensor([3 + 4j, 0])
            with pytest.raises(gclip.UsageError, match="bounds that are not symmetric.*modulus"):
                gclip.Clipper([param], "value(clip_value=1, lower=-0.5)", **how).step()

    @pytest.mark.parametrize("spec", ["value(clip_value=1)", "norm(scope=unit)", "power(p=0.5)"])
    def test_may_be_sparse(self, spec: str) -> None:
        dense, sparse = (nn.Parameter(torch.zeros(4, 2, dtype=torch.complex64)) for _ in "12")
        rows = torch.tensor([[3 + 4j, 0.1j], [2j, 1.0]])
        sparse.grad = torch.sparse_coo_tensor(
            torch.tensor([[1, 3]]), rows, (4, 2), check_invariants=True
        )
        dense.grad = sparse.grad.to_dense()
        for param in (dense, sparse):
            gclip.Clipper([param], spec).step()
        torch.testing.assert_close(sparse.grad.to_dense(), dense.grad)
        assert not torch.equal(dense.grad[1], rows[0])

    def test_an_infinite_one_is_cut_in_its_direction(self) -> None:
        inf, nan = math.inf, math.nan
        param = nn.Parameter(torch.zeros(4, dtype=torch.complex64))
        param.grad = torch.tensor([complex(-inf, 3), complex(inf, inf), complex(nan, 9), 4j])
        gclip.Clipper([param], "value(clip_value=2)", nonfinite="keep").step()
        want = torch.tensor([-2, complex(2**0.5, 2**0.5), complex(nan, 9), 2j])
        torch.testing.assert_close(param.grad, want, equal_nan=True)


class TestFloat32OnlyWhereItWasSo:
    def test_plain_float32_stays_float32(self) -> None:
        for strategy in ("norm", "agc", "percentile(scope=layer)", "value", "spam"):
            loop = Loop(gclip.parse(strategy))
            loop.step(0, SINGLE)
            report = loop.handle.report
            assert {report.norm.dtype, report.limit.dtype, report.clipped_norm.dtype} == {SINGLE}
            assert loop.handle.record.arrays()["norm"].dtype == "float32"
