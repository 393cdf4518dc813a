"""What a unit is, for every module of torch.nn that has weights; and what a user says it is."""

from __future__ import annotations

import inspect
import re

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

import gclip
from gclip import UsageError
from gclip.training.fleet import FleetClipper

# Of each class: how to make one, and the parameters that have several units, with the dimension.
# All others are one unit each.
MODULES = {
    nn.Linear: (lambda: nn.Linear(3, 4), {"weight": 0}),
    nn.Bilinear: (lambda: nn.Bilinear(2, 3, 4), {"weight": 0}),
    nn.Conv1d: (lambda: nn.Conv1d(4, 6, 3, groups=2), {"weight": 0}),
    nn.Conv2d: (lambda: nn.Conv2d(4, 6, 3, groups=2), {"weight": 0}),
    nn.Conv3d: (lambda: nn.Conv3d(2, 3, 2), {"weight": 0}),
    nn.ConvTranspose1d: (lambda: nn.ConvTranspose1d(4, 3, 2), {"weight": 1}),
    nn.ConvTranspose2d: (lambda: nn.ConvTranspose2d(4, 3, 2), {"weight": 1}),
    nn.ConvTranspose3d: (lambda: nn.ConvTranspose3d(4, 3, 2), {"weight": 1}),
    nn.Embedding: (lambda: nn.Embedding(5, 3), {"weight": 0}),
    nn.EmbeddingBag: (lambda: nn.EmbeddingBag(5, 3), {"weight": 0}),
    nn.RNN: (lambda: nn.RNN(3, 4), {"weight_ih_l0": 0, "weight_hh_l0": 0}),
    nn.GRU: (lambda: nn.GRU(3, 4), {"weight_ih_l0": 0, "weight_hh_l0": 0}),
    nn.LSTM: (
        lambda: nn.LSTM(3, 4, proj_size=2),
        {"weight_ih_l0": 0, "weight_hh_l0": 0, "weight_hr_l0": 0},
    ),
    nn.RNNCell: (lambda: nn.RNNCell(3, 4), {"weight_ih": 0, "weight_hh": 0}),
    nn.GRUCell: (lambda: nn.GRUCell(3, 4), {"weight_ih": 0, "weight_hh": 0}),
    nn.LSTMCell: (lambda: nn.LSTMCell(3, 4), {"weight_ih": 0, "weight_hh": 0}),
    nn.MultiheadAttention: (
        lambda: nn.MultiheadAttention(4, 2, kdim=3, vdim=5, add_bias_kv=True),
        {"q_proj_weight": 0, "k_proj_weight": 0, "v_proj_weight": 0, "out_proj.weight": 0},
    ),
    nn.TransformerEncoderLayer: (
        lambda: nn.TransformerEncoderLayer(4, 2, 6),
        {
            "self_attn.in_proj_weight": 0,
            "self_attn.out_proj.weight": 0,
            "linear1.weight": 0,
            "linear2.weight": 0,
        },
    ),
    nn.AdaptiveLogSoftmaxWithLoss: (
        lambda: nn.AdaptiveLogSoftmaxWithLoss(4, 6, [2]),
        {"head.weight": 0, "tail.0.0.weight": 0, "tail.0.1.weight": 0},
    ),
    nn.LayerNorm: (lambda: nn.LayerNorm((3, 4)), {}),
    nn.RMSNorm: (lambda: nn.RMSNorm((3, 4)), {}),
    nn.GroupNorm: (lambda: nn.GroupNorm(2, 4), {}),
    nn.BatchNorm1d: (lambda: nn.BatchNorm1d(3), {}),
    nn.BatchNorm2d: (lambda: nn.BatchNorm2d(3), {}),
    nn.BatchNorm3d: (lambda: nn.BatchNorm3d(3), {}),
    nn.SyncBatchNorm: (lambda: nn.SyncBatchNorm(3), {}),
    nn.InstanceNorm1d: (lambda: nn.InstanceNorm1d(3, affine=True), {}),
    nn.InstanceNorm2d: (lambda: nn.InstanceNorm2d(3, affine=True), {}),
    nn.InstanceNorm3d: (lambda: nn.InstanceNorm3d(3, affine=True), {}),
    nn.PReLU: (lambda: nn.PReLU(3), {}),
}
if hasattr(nn, "LinearCrossEntropyLoss"):
    MODULES[nn.LinearCrossEntropyLoss] = (
        lambda: nn.LinearCrossEntropyLoss(4, 3, bias=True),
        {"linear.weight": 0},
    )
# Made of the modules above, or of no weights until they have seen data.
OTHERS = {
    nn.Transformer, nn.TransformerEncoder, nn.TransformerDecoder, nn.TransformerDecoderLayer,
    nn.RNNBase, nn.RNNCellBase, nn.Module, nn.Container, nn.Sequential, nn.ModuleList,
    nn.ModuleDict, nn.ParameterList, nn.ParameterDict,
}  # fmt: skip


WITHOUT_WEIGHTS = re.compile(  # those that are not made without arguments
    r"(Adaptive|Fractional)?(Avg|Max|LP)(P|Unp)ool\dd|\w+Pad\dd|ChannelShuffle|Pixel(Uns|S)huffle"
    r"|CrossMapLRN2d|LocalResponseNorm|DataParallel|Fold|Unfold|Unflatten|Threshold"
)


def classes():
    there = [getattr(nn, name) for name in dir(nn)]
    found = {each for each in there if inspect.isclass(each) and issubclass(each, nn.Module)}
    return sorted(found, key=lambda each: each.__name__)


def units(tensor, dim, groups=1):
    """The units of a tensor as views, by indexing alone."""
    if dim is None:
        return [tensor]
    blocks = tensor.chunk(groups)
    return [block.select(dim, i) for block in blocks for i in range(tensor.shape[dim])]


def check(model, dims, groups=1, **settings):
    """Clip by unit, and by hand; the norms and what is left must agree."""
    torch.manual_seed(1)
    names = [name for name, _ in model.named_parameters()]
    want = {}
    for name, param in model.named_parameters():
        param.grad = torch.randn_like(param)
        want[name] = param.grad.clone()
    norms = []
    for name in names:
        dim = dims.get(name)
        for unit in units(want[name], dim, groups if dim else 1):
            norms.append(float(unit.norm()))
            unit.mul_(min(1.0, 0.7 / norms[-1]))
    report = gclip.Clipper(model, "norm(max_norm=0.7, scope=unit)", **settings).step()
    assert report.norm.tolist() == pytest.approx(norms, rel=1e-5)
    for name, param in model.named_parameters():
        torch.testing.assert_close(param.grad, want[name], rtol=1e-5, atol=1e-7)
    return report


@pytest.mark.parametrize("cls", MODULES, ids=lambda cls: cls.__name__)
def test_the_units_of_each_module(cls):
    build, dims = MODULES[cls]
    check(build(), dims)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("cls", classes(), ids=lambda cls: cls.__name__)
def test_every_module_of_torch_is_known(cls):
    if cls in MODULES or cls in OTHERS or "Lazy" in cls.__name__:
        return
    if not WITHOUT_WEIGHTS.fullmatch(cls.__name__):
        made = cls()  # where this fails, say in MODULES how to make one
        assert not list(made.parameters()), f"say in MODULES what a unit of {cls.__name__} is"


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_transposed_convolutions_with_groups(dims):
    kind = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[dims - 1]
    report = check(kind(6, 4, 2, groups=2), {"weight": 1}, groups=2)
    assert len(report.norm) == 4 + 1  # output channels, and the bias


def test_a_quiet_output_beside_a_loud_one_keeps_its_bits():
    for groups in (1, 2):
        layer = nn.ConvTranspose2d(4, 6, 1, groups=groups, bias=False)
        nn.init.ones_(layer.weight)
        x = torch.ones(1, 4, 1, 1)
        (layer(x)[0, 5].sum() * 1e-3 + layer(x)[0, 0].sum() * 100).backward()
        before = layer.weight.grad.clone()
        gclip.Clipper(layer, "agc(clip_factor=0.01)").step()
        loud = before == 100
        assert torch.equal(layer.weight.grad[~loud], before[~loud])
        assert layer.weight.grad[loud].norm().item() == pytest.approx(0.01 * (4 / groups) ** 0.5)


class TestParametrized:
    def test_weights_have_the_units_of_what_they_make(self):
        linear = parametrizations.weight_norm(nn.Linear(3, 4))
        name = "parametrizations.weight.original"
        check(linear, {f"{name}0": 0, f"{name}1": 0})
        deep = parametrizations.weight_norm(nn.ConvTranspose1d(4, 3, 2))
        check(deep, {f"{name}1": 1})  # one length for each input: they are no outputs
        across = parametrizations.weight_norm(nn.ConvTranspose1d(4, 3, 2), dim=1)
        check(across, {f"{name}0": 1, f"{name}1": 1})
        check(parametrizations.spectral_norm(nn.ConvTranspose1d(4, 3, 2)), {name: 1})
        check(parametrizations.orthogonal(nn.Linear(4, 4)), {name: 0})

    @pytest.mark.filterwarnings("ignore::FutureWarning")
    def test_the_older_ways(self):
        check(torch.nn.utils.weight_norm(nn.ConvTranspose1d(4, 3, 2)), {"weight_v": 1})
        check(torch.nn.utils.spectral_norm(nn.ConvTranspose1d(4, 3, 2)), {"weight_orig": 1})


class TestTold:
    def test_by_the_model_where_parameters_are_given(self):
        model = nn.Sequential(nn.ConvTranspose1d(4, 3, 2))
        for give in (
            lambda: gclip.Clipper(model.named_parameters(), "agc", model=model),
            lambda: gclip.attach(torch.optim.SGD(model.parameters(), 0.1), "agc", model=model),
        ):
            made = give()
            clipper = getattr(made, "clipper", made)
            for param in model.parameters():
                param.grad = torch.ones_like(param)
            assert len(clipper.step().groups) == 3 + 1

    def test_without_a_module_it_is_dimension_0(self):
        model = nn.ConvTranspose1d(4, 3, 2)
        for param in model.parameters():
            param.grad = torch.ones_like(param)
        for params in (model.parameters(), model.named_parameters()):
            assert len(gclip.Clipper(params, "agc").step().groups) == 4 + 1

    def test_a_subclass_is_what_it_comes_from(self):
        class Mine(nn.ConvTranspose1d):
            pass

        check(nn.Sequential(Mine(4, 3, 2)), {"0.weight": 1})

    def test_the_user_names_the_axis(self):
        class Mine(nn.Module):
            def __init__(self):
                super().__init__()
                self.kernel = nn.Parameter(torch.randn(2, 3, 4))
                self.table = nn.Parameter(torch.randn(3, 2))
                self.gain = nn.Parameter(torch.randn(5))

        said = {"kernel": -1, "tab*": None, "gain": 0}
        check(Mine(), {"kernel": 2, "gain": 0}, unit_dims=said)
        model = Mine()
        for param in model.parameters():
            param.grad = torch.ones_like(param)
        listed = gclip.Clipper(model.parameters(), "agc", unit_dims={"0": 1})
        assert len(listed.step().groups) == 3 + 3 + 1
        # What the user says goes before what the class says.
        check(nn.ConvTranspose1d(4, 3, 2), {"weight": 0}, unit_dims={"weight": 0})

    @pytest.mark.parametrize(
        ("said", "message"),
        [
            ({"wieght": 0}, r"'wieght' matches no parameter; did you mean 'weight'"),
            ({"weight": 2}, r"dimension 2, but weight has the shape \(2, 3\) \(choices: 0, 1, or"),
            ({"bias": 1}, r"bias has the shape \(2,\)"),
            ({"weight": "0"}, r"dimension '0'"),
        ],
    )
    def test_what_cannot_be_meant(self, said, message):
        with pytest.raises(UsageError, match=message):
            gclip.Clipper(nn.Linear(3, 2), "agc", unit_dims=said)


RULES = ("norm(max_norm=0.6, scope=unit{})", "norm(max_norm=0.2, scope=unit{}, rule=clamp)")


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(
    "spec", ["agc(clip_factor=0.2)", RULES[0].format(""), RULES[1].format(""), "spectral"]
)
def test_fleets_agree(spec, groups):
    torch.manual_seed(0)
    models = [nn.ConvTranspose1d(4, 6, 2, groups=groups) for _ in range(3)]
    stacks = {
        name: nn.Parameter(torch.stack([dict(m.named_parameters())[name].detach() for m in models]))
        for name in ("weight", "bias")
    }
    specs = [spec, "norm(max_norm=0.3)", spec]
    clippers = [gclip.Clipper(m, s) for m, s in zip(models, specs, strict=True)]
    fleet = FleetClipper(stacks, specs, model=models[0])
    said = FleetClipper(stacks, specs, unit_dims={"weight": 1})
    for step in range(3):
        for name, stack in stacks.items():
            stack.grad = torch.randn_like(stack) * 2**step
            for model, grad in zip(models, stack.grad, strict=True):
                model.get_parameter(name).grad = grad.clone()
        if groups == 1:
            kept = {name: stack.grad.clone() for name, stack in stacks.items()}
            said.step()
            for name, stack in stacks.items():
                kept[name], stack.grad = stack.grad, kept[name]
        for clipper in clippers:
            clipper.step()
        fleet.step()
        for name, stack in stacks.items():
            for model, grad in zip(models, stack.grad, strict=True):
                torch.testing.assert_close(model.get_parameter(name).grad, grad)
            if groups == 1:
                assert torch.equal(kept[name], stack.grad)


def test_single_examples_agree():
    torch.manual_seed(0)
    for groups in (1, 2):
        model = nn.Sequential(nn.ConvTranspose1d(4, 6, 2, groups=groups), nn.Flatten())
        x, y = torch.randn(5, 4, 3), torch.randn(5, 24)
        clipper = gclip.Clipper(model, "per_sample(max_norm=0.1, scope=unit)")
        clipper.backward(x, y, nn.functional.mse_loss)
        got = [p.grad.clone() for p in model.parameters()]
        want = [torch.zeros_like(p) for p in model.parameters()]
        for one, target in zip(x, y, strict=True):
            model.zero_grad()
            nn.functional.mse_loss(model(one[None]), target[None]).backward()
            for total, param, dim in zip(want, model.parameters(), (1, None), strict=True):
                for unit in units(param.grad, dim, groups if dim else 1):
                    unit.mul_(min(1.0, 0.1 / float(unit.norm())))
                total.add_(param.grad / len(x))
        for mine, his in zip(got, want, strict=True):
            torch.testing.assert_close(mine, his, rtol=1e-5, atol=1e-7)


def test_matrices_have_a_row_for_each_output():
    torch.manual_seed(0)
    for groups in (1, 2):
        layer = nn.ConvTranspose1d(4, 6, 2, groups=groups, bias=False)
        layer.weight.grad = torch.randn_like(layer.weight) * 3
        rows = torch.stack([u.flatten() for u in units(layer.weight.grad, 1, groups)])
        u, s, v = torch.linalg.svd(rows, full_matrices=False)
        assert s.max() > 1
        gclip.Clipper(layer, "spectral(threshold=1)").step()
        left = torch.stack([u.flatten() for u in units(layer.weight.grad, 1, groups)])
        torch.testing.assert_close(left, u * s.clamp(max=1) @ v, rtol=1e-4, atol=1e-5)


def test_a_survey_has_the_same_units():
    model = nn.ConvTranspose1d(4, 3, 2)
    for param in model.parameters():
        param.grad = torch.ones_like(param)
    for survey, count in (
        (gclip.Survey(model), 3 + 1),
        (gclip.Survey(model, unit_dims={"weight": 2}), 2 + 1),
        (gclip.Survey(model.named_parameters()), 4 + 1),
    ):
        survey.watch()
        assert survey.watched("unit").norm.shape == (1, count)


def test_units_have_names():
    for layer, dims, names in (
        (nn.Linear(2, 3), None, ["weight[0]", "weight[1]", "weight[2]"]),
        (nn.ConvTranspose1d(3, 2, 1), None, ["weight[:, 0]", "weight[:, 1]"]),
        (nn.ConvTranspose1d(2, 2, 1, groups=2), None, ["weight[0, :, 0]", "weight[1, :, 0]"]),
        (nn.Conv1d(3, 2, 1), {"weight": -2}, ["weight[:, 0]", "weight[:, 1]", "weight[:, 2]"]),
        (nn.LayerNorm((2, 2)), None, ["weight"]),
    ):
        layer.bias = None
        layer.weight.grad = torch.ones_like(layer.weight)
        assert list(gclip.Clipper(layer, "agc", unit_dims=dims).step().groups) == names


def test_a_state_of_units_along_another_dimension_is_refused():
    layer = nn.Conv1d(3, 3, 1, bias=False)
    layer.weight.grad = torch.ones_like(layer.weight)
    clipper = gclip.Clipper(layer, "zclip(scope=unit)")
    clipper.step()
    other = gclip.Clipper(layer, "zclip(scope=unit)", unit_dims={"weight": 1})
    with pytest.raises(UsageError, match=r"has no group 'weight\[:, 0\]'"):
        other.load_state_dict(clipper.state_dict())


def test_patterns_know_wrapped_models():
    net = torch.compile(nn.Sequential(nn.Conv1d(3, 2, 1, bias=False)), backend="eager")
    for param in net.parameters():
        param.grad = torch.ones_like(param)
    for pattern in ("0.weight", "_orig_mod.0.weight"):
        report = gclip.Clipper(net, "agc", unit_dims={pattern: 1}).step()
        assert len(report.groups) == 3
    deep = torch.compile(nn.Sequential(nn.ConvTranspose1d(3, 2, 1, bias=False)), backend="eager")
    for param in deep.parameters():
        param.grad = torch.ones_like(param)
    assert len(gclip.Clipper(deep, "agc").step().groups) == 2
