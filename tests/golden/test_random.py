"""Random clipping draws numbers that are uniform, independent, and the same everywhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

import gclip
from gclip.strategies.random import mix, uniform
from tests.golden.fixed import draw

STEPS, GROUPS = 4000, 24
SEEDS = [0, 1, 2, 12345, 2**32, 2**63 - 1]


def numbers(seed: int) -> np.ndarray:
    """The draws of one seed, ``(steps, groups)``."""
    steps = torch.arange(STEPS).unsqueeze(-1).expand(STEPS, GROUPS)
    return uniform(seed, steps).double().numpy()


class TestUniform:
    @pytest.mark.parametrize("seed", SEEDS)
    def test_all_draws_of_a_seed_are_uniform(self, seed):
        found = numbers(seed)
        assert found.min() >= 0
        assert found.max() < 1
        assert stats.kstest(found.ravel(), "uniform").pvalue > 1e-3
        cells = np.bincount((found * 64).astype(int).ravel(), minlength=64)
        assert stats.chisquare(cells).pvalue > 1e-3

    @pytest.mark.parametrize("seed", SEEDS)
    def test_each_group_is_uniform_over_the_steps(self, seed):
        found = numbers(seed)
        values = [stats.kstest(found[:, group], "uniform").pvalue for group in range(GROUPS)]
        assert min(values) > 1e-3 / GROUPS

    @pytest.mark.parametrize("seed", SEEDS)
    def test_each_step_is_uniform_over_many_groups(self, seed):
        found = uniform(seed, torch.arange(4).unsqueeze(-1).expand(4, 100_000)).numpy()
        for row in found:
            assert stats.kstest(row, "uniform").pvalue > 1e-3 / 4

    def test_steps_groups_and_seeds_do_not_tell_of_one_another(self):
        found = numbers(0)
        other = numbers(1)
        pairs = {
            "next step": (found[:-1], found[1:]),
            "next group": (found[:, :-1], found[:, 1:]),
            "next seed": (found, other),
        }
        for name, (one, two) in pairs.items():
            correlation = np.corrcoef(one.ravel(), two.ravel())[0, 1]
            assert abs(correlation) * np.sqrt(one.size) < 4, name
            cells = np.histogram2d(one.ravel(), two.ravel(), bins=16, range=[[0, 1], [0, 1]])[0]
            assert stats.chisquare(cells.ravel()).pvalue > 1e-3, name

    def test_the_hash_is_a_permutation(self):
        words = mix(torch.arange(1_000_000))
        assert words.unique().numel() == 1_000_000
        assert int(words.min()) >= 0
        assert int(words.max()) < 2**32

    def test_the_last_words_do_not_overflow(self):
        steps = torch.tensor([[2**32 - 1], [2**32 - 2]])
        found = uniform(2**63 - 1, steps)
        want = [[draw(2**63 - 1, int(s), 0)] for s in steps]
        assert found.tolist() == want


class TestReproducible:
    def test_the_numbers_are_known(self):
        found = uniform(7, torch.tensor([[0, 0, 0], [1, 1, 1]]))
        want = [[draw(7, step, group) for group in range(3)] for step in range(2)]
        assert found.tolist() == want

    def test_torchs_generator_is_neither_read_nor_moved(self):
        strategy = gclip.create("random", beta=0.5)
        norms = np.full((30, 3), 2.0)
        torch.manual_seed(1)
        before = torch.get_rng_state()
        first = gclip.simulate(strategy, norms)[1]
        assert torch.equal(before, torch.get_rng_state())
        torch.manual_seed(2)
        assert torch.equal(first, gclip.simulate(strategy, norms)[1])

    def test_runs_side_by_side_draw_as_one_alone(self):
        strategy = gclip.create("random", beta=0.5)
        alone = gclip.simulate(strategy, np.full((30, 3), 2.0))[1]
        stacked = gclip.simulate(strategy, np.full((30, 4, 3), 2.0))[1]
        assert torch.equal(stacked, alone.unsqueeze(1).expand(30, 4, 3))

    def test_a_loaded_clipper_goes_on_with_the_next_numbers(self):
        def steps(clipper, parameter, count):
            found = []
            for _ in range(count):
                parameter.grad = torch.full((3,), 5.0)
                clipper.step()
                found.append(float(parameter.grad[0]))
            return found

        parameter = torch.nn.Parameter(torch.ones(3))
        make = "random(beta=0.5, seed=3)"
        whole = steps(gclip.Clipper([parameter], make), parameter, 40)
        first = gclip.Clipper([parameter], make)
        head = steps(first, parameter, 15)
        second = gclip.Clipper([parameter], make)
        second.load_state_dict(first.state_dict())
        assert head + steps(second, parameter, 25) == whole
        assert len(set(whole)) == 2  # clipped at times, and at times not

    def test_a_step_that_is_not_finite_takes_no_number(self):
        strategy = gclip.create("random", beta=0.5)
        norms = np.full(40, 2.0)
        with_nan = np.insert(norms, 10, np.nan)
        clipped = gclip.simulate(strategy, with_nan)[1]
        assert torch.equal(torch.cat([clipped[:10], clipped[11:]]),
                           gclip.simulate(strategy, norms)[1])  # fmt: skip


class TestProbability:
    @pytest.mark.parametrize(
        ("norm", "beta", "power"), [(1.5, 0.3, 1), (4.0, 0.3, 1), (2.0, 0.6, 2), (50.0, 0.85, 1)]
    )
    def test_clips_as_often_as_the_equation_says(self, norm, beta, power):
        strategy = gclip.create("random", beta=beta, power=power)
        _, left = gclip.simulate(strategy, np.full((3000, 4), norm))
        clipped = int((left == 1.0).sum())
        assert int(((left == 1.0) | (left == norm)).sum()) == left.numel()
        probability = beta ** ((1.0 / norm) ** power)
        assert stats.binomtest(clipped, left.numel(), probability).pvalue > 1e-3

    def test_at_or_under_the_limit_it_never_clips(self):
        norms = np.tile([0.0, 0.5, 1.0], (500, 1))
        limits, left = gclip.simulate(gclip.create("random", beta=1.0), norms)
        assert torch.equal(left, torch.as_tensor(norms, dtype=torch.float32))
        assert torch.isinf(limits).all()
