from pathlib import Path

import numpy as np
import pytest
import torch
from timm.layers import SEModule
from torch import nn

from senet import SEConfig, SqueezeExcitation, UserError, create_model
from senet.nn import (
    BasicBlock,
    Bottleneck,
    ResidualTail,
    register_gate,
    register_squeeze,
    se as module,
    set_kernels,
)
from senet.nn.config import CHOICES
from senet.plugins import import_users_own


def test_equals_its_formula_in_float64():
    torch.manual_seed(0)
    block = SqueezeExcitation(32, SEConfig(reduction=4)).double()
    for parameter in block.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(3, 32, 5, 7, dtype=torch.float64)
    w1, b1 = block.excitation.fc1.weight[:, :, 0, 0], block.excitation.fc1.bias
    w2, b2 = block.excitation.fc2.weight[:, :, 0, 0], block.excitation.fc2.bias
    z = x.mean((2, 3))
    gate = 1 / (1 + torch.exp(-(torch.clamp(z @ w1.T + b1, min=0) @ w2.T + b2)))
    torch.testing.assert_close(block(x), x * gate[:, :, None, None], rtol=0, atol=1e-14)
    assert block.gate(x).shape == (3, 32, 1, 1)


def test_equals_timm_with_its_rounding():
    ours = SqueezeExcitation(96, SEConfig(reduction=16, round_to=8))
    theirs = SEModule(96)
    theirs.load_state_dict({k.removeprefix("excitation."): v for k, v in ours.state_dict().items()})
    x = torch.randn(2, 96, 4, 4)
    torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize("channels", [8, 64, 96, 216, 256, 512, 1024, 2048])
@pytest.mark.parametrize("reduction", [1, 2, 3, 16, 24, 32, 64])
def test_rounded_widths_are_timms(channels: int, reduction: int):
    theirs = SEModule(channels, rd_ratio=1 / reduction).fc1.out_channels
    assert SEConfig(reduction=reduction, round_to=8).hidden_channels(channels) == theirs
    assert SEConfig(reduction=reduction).hidden_channels(channels) == max(1, channels // reduction)


def test_maximum_squeeze_and_gates():
    x = torch.randn(2, 8, 3, 3)
    for gate, function in (("tanh", torch.tanh), ("relu", torch.relu)):
        block = SqueezeExcitation(8, SEConfig(reduction=2, squeeze="max", gate=gate))
        z = x.amax((2, 3), keepdim=True)
        expected = function(block.excitation.fc2(torch.relu(block.excitation.fc1(z))))
        torch.testing.assert_close(block(x), x * expected)


def test_no_squeeze_gates_every_position():
    block = SqueezeExcitation(8, SEConfig(reduction=2, squeeze="none"))
    x = torch.randn(2, 8, 3, 5)
    assert block.gate(x).shape == x.shape
    alone = block(x[:, :, 1:2, 2:3])  # a position sees only itself
    torch.testing.assert_close(block(x)[:, :, 1:2, 2:3], alone)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"reduction": 0}, "se.reduction is 0"),
        ({"reduction": -4}, "1 or more"),
        ({"reduction": 2.5}, "integer"),
        ({"reduction": True}, "integer"),
        ({"round_to": 0}, "se.round_to is 0"),
        ({"squeeze": "agv"}, 'did you mean "avg"'),
        ({"gate": "sigmod"}, 'did you mean "sigmoid"'),
        ({"placement": "prae"}, 'did you mean "pre"'),
        ({"stages": ()}, "se.stages"),
        ({"stages": (2, 2)}, "once"),
    ],
)
def test_impossible_values_are_refused(values: dict, words: str):
    with pytest.raises(UserError, match=words):
        SEConfig(**values)


def test_degenerate_widths_are_refused():
    with pytest.raises(UserError, match="wider than its input"):
        SEConfig(round_to=8).hidden_channels(4)
    with pytest.raises(UserError, match="the same network as reduction=64"):
        create_model("se_resnet20", se=SEConfig(reduction=65))
    with pytest.raises(UserError, match="has stages"):
        create_model("se_resnet20", se=SEConfig(stages=(5,)))
    with pytest.raises(UserError, match="plain twin"):
        create_model("resnet20", se=SEConfig())


def test_placements_act_where_the_paper_draws_them():
    """Figure 5: with all gates forced to zero, each placement silences its own path and no other."""
    x = torch.randn(2, 64, 6, 6)

    def output(placement: str, forced: bool) -> torch.Tensor:
        torch.manual_seed(0)
        block = Bottleneck(64, 16, 64, se=SEConfig(reduction=4, placement=placement)).eval()
        se = next(m for m in block.modules() if isinstance(m, SqueezeExcitation))
        if forced:
            nn.init.zeros_(se.excitation.fc2.weight)
            nn.init.constant_(se.excitation.fc2.bias, -1e4)  # sigmoid -> 0
        return block(x), block

    for placement, expected in (
        ("standard", lambda b: x.relu()),
        ("post", lambda b: torch.zeros_like(x)),
        ("identity", lambda b: b.tail.bn(b.conv3(_branch(b, x))).relu()),
        ("pre", lambda b: (x + b.tail.bn(b.conv3(_branch(b, torch.zeros_like(x))))).relu()),
        ("conv3x3", lambda b: (x + b.tail.bn(torch.zeros_like(x))).relu()),
    ):
        y, block = output(placement, forced=True)
        torch.testing.assert_close(y, expected(block))


def _branch(block: Bottleneck, x: torch.Tensor) -> torch.Tensor:
    x = block.bn1(block.conv1(x)).relu()
    return block.bn2(block.conv2(x)).relu()


def test_conv3x3_needs_a_bottleneck():
    with pytest.raises(UserError, match="bottleneck"):
        BasicBlock(8, 8, se=SEConfig(reduction=2, placement="conv3x3"))


SHAPES = [(3, 12), (3, 12, 7), (3, 12, 5, 4), (3, 12, 3, 4, 2)]
BY_HAND = {
    "avg": lambda u: u.mean(2),
    "max": lambda u: u.max(2),
    "std": lambda u: np.sqrt(((u - u.mean(2, keepdims=True)) ** 2).mean(2)),
    "gem": lambda u: (np.maximum(u, 1e-6) ** 3).mean(2) ** (1 / 3),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("squeeze", [*BY_HAND, "none"])
def test_equations_2_to_4_on_zero_to_three_dimensions(shape: tuple[int, ...], squeeze: str):
    torch.manual_seed(0)
    block = SqueezeExcitation(12, SEConfig(reduction=4, squeeze=squeeze)).double()
    for parameter in block.parameters():
        nn.init.normal_(parameter)
    w1, b1, w2, b2 = (p.detach().numpy().reshape(len(p), -1) for p in block.parameters())
    x = torch.randn(shape, dtype=torch.float64)
    u = x.numpy().reshape(3, 12, -1)
    z = u if squeeze == "none" else BY_HAND[squeeze](u)[:, :, None]
    hidden = np.maximum(np.einsum("oc,bcp->bop", w1, z) + b1, 0)
    gate = 1 / (1 + np.exp(-(np.einsum("oc,bcp->bop", w2, hidden) + b2)))
    np.testing.assert_allclose(block(x).detach().numpy(), (u * gate).reshape(shape), rtol=0, atol=1e-13)
    wanted = shape if squeeze == "none" else (3, 12, *[1] * (len(shape) - 2))
    assert block.gate(x).shape == wanted


@pytest.mark.parametrize("shape", [(12,), (3, 11), (3, 4, 4, 12), (1, 12, 1, 1, 1, 1)])
def test_other_shapes_are_named(shape: tuple[int, ...]):
    with pytest.raises(UserError, match=r"takes \(B, 12\), .* not \(") as refusal:
        SqueezeExcitation(12, SEConfig(reduction=4))(torch.zeros(shape))
    assert str(shape) in str(refusal.value)


@pytest.mark.parametrize("squeeze", ["std", "gem"])
def test_squeezes_are_differentiable_where_a_map_is_constant_or_negative(squeeze: str):
    for x in (torch.full((1, 4, 3, 3), 2.0), torch.full((1, 4, 3, 3), -2.0), torch.ones(1, 4, 1, 1)):
        x.requires_grad_()
        SqueezeExcitation(4, SEConfig(reduction=2, squeeze=squeeze))(x).sum().backward()
        assert x.grad.isfinite().all()


def test_a_squeeze_and_a_gate_of_ones_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """One function, one name: built, not fused, and known to a checkpoint by its name."""
    for names, key in ((module.SQUEEZES, "squeeze"), (module.GATES, "gate")):
        monkeypatch.setattr(module, f"{key.upper()}S", dict(names))
        monkeypatch.setitem(CHOICES, key, list(CHOICES[key]))
    with pytest.raises(UserError, match=r'se\.squeeze is "median"'):
        SEConfig(squeeze="median")
    register_squeeze("median", lambda x: x.flatten(2).median(2).values[:, :, None, None])
    register_gate("hard", lambda x: (x + 0.5).clamp(0, 1))
    config = SEConfig(reduction=2, squeeze="median", gate="hard")
    block, x = SqueezeExcitation(4, config), torch.randn(2, 4, 3, 5)
    z = x.flatten(2).median(2).values[:, :, None, None]
    fc1, fc2 = block.excitation.fc1, block.excitation.fc2
    torch.testing.assert_close(block(x), x * (fc2(fc1(z).relu()) + 0.5).clamp(0, 1))
    assert SEConfig(**config.to_dict()) == config
    with pytest.raises(UserError, match=r"se\.squeeze is median"):
        set_kernels(ResidualTail(4, config), "triton")
    with monkeypatch.context() as patch:  # as train.py finds it, in every process of a job
        patch.syspath_prepend(tmp_path)
        (tmp_path / "my_blocks.py").write_text(
            "from senet.nn import register_squeeze\n\nregister_squeeze('first', lambda x: x[:, :, :1, :1])\n"
        )
        for modules in ("my_blocks", "no_blocks"):
            import_users_own.cache_clear()
            patch.setenv("SENET_PLUGINS", modules)
            if modules == "my_blocks":
                torch.testing.assert_close(
                    module.SQUEEZES[SEConfig(squeeze="first").squeeze](x), x[:, :, :1, :1]
                )
            else:
                with pytest.raises(UserError, match="SENET_PLUGINS=no_blocks: there is no such module"):
                    SEConfig(squeeze="second")
    import_users_own.cache_clear()
    with pytest.raises(UserError, match='has a "median" already'):
        register_squeeze("median", lambda x: x)
    with pytest.raises(UserError, match='has a "avg" already'):
        register_squeeze("avg", lambda x: x)
