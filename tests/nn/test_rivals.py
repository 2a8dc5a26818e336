"""The rivals of SE: their equations in float64, every family, the same trunk around them, their cost by hand."""

import hashlib
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from senet import SEConfig, UserError, create_model
from senet.kernels import Kernels, tail as dispatch
from senet.models import Network, complexity, se_twin
from senet.models.families import FAMILIES
from senet.nn import AttentionBlock, ResidualTail, build_block, set_kernels
from senet.nn.config import CHOICES
from senet.nn.folding import fold_batch_norms
from senet.nn.tail import set_drop_path
from senet.training.entry import check_run
from senet.weights.load import check_architecture, load_weights

RIVALS = [block for block in CHOICES["block"] if block != "se"]


def rows(z: Tensor, layer: nn.Module) -> Tensor:
    """A 1x1 convolution as a product of matrices, on (B, C)."""
    y = z @ layer.weight.flatten(1).T
    return y if layer.bias is None else y + layer.bias


def points(x: Tensor, layer: nn.Module) -> Tensor:
    """The same at every position of (B, C, H, W)."""
    y = torch.einsum("bchw,oc->bohw", x, layer.weight.flatten(1))
    return y if layer.bias is None else y + layer.bias[:, None, None]


def eca(block: nn.Module, x: Tensor) -> Tensor:
    kernel, z = block.inner.conv.weight.flatten(), x.mean((2, 3))
    half = len(kernel) // 2
    around = F.pad(z, (half, half))
    y = sum(kernel[k] * around[:, k : k + z.shape[1]] for k in range(len(kernel)))
    return x * y.sigmoid()[:, :, None, None]


def ge(_: nn.Module, x: Tensor) -> Tensor:
    return x / (1 + (-x.mean((2, 3), keepdim=True)).exp())


def context(block: nn.Module, x: Tensor, mlp: nn.Module) -> Tensor:
    attention = points(x, block.inner.conv_attn).flatten(1).exp()
    attention = attention / attention.sum(1, keepdim=True)
    hidden = rows(torch.einsum("bcp,bp->bc", x.flatten(2), attention), mlp.fc1)
    centred = hidden - hidden.mean(1, keepdim=True)
    normal = centred / (centred.square().mean(1, keepdim=True) + mlp.norm.eps).sqrt()
    return rows((normal * mlp.norm.weight + mlp.norm.bias).clamp(min=0), mlp.fc2)[:, :, None, None]


def gc(block: nn.Module, x: Tensor) -> Tensor:
    return x * context(block, x, block.inner.mlp_scale).sigmoid()


def gca(block: nn.Module, x: Tensor) -> Tensor:
    return x + context(block, x, block.inner.mlp_add)


def cbam(block: nn.Module, x: Tensor) -> Tensor:
    channel, spatial = block.inner.channel, block.inner.spatial
    logits = sum(rows(rows(z, channel.fc1).relu(), channel.fc2) for z in (x.mean((2, 3)), x.amax((2, 3))))
    x = x * logits.sigmoid()[:, :, None, None]
    bn = spatial.conv.bn
    seen = F.conv2d(torch.stack([x.mean(1), x.amax(1)], 1), spatial.conv.conv.weight, padding=3)
    return x * ((seen - bn.running_mean) / (bn.running_var + bn.eps).sqrt() * bn.weight + bn.bias).sigmoid()


def mask(block: nn.Module, x: Tensor) -> Tensor:
    low = F.max_pool2d(points(x, block.down[0]).relu(), 3, 2, 1)
    low = F.conv2d(low, block.down[3].weight, block.down[3].bias, padding=1).relu()
    up = F.interpolate(low, x.shape[-2:], mode="bilinear", align_corners=False)
    return x * (1 + points(up, block.up[0]).sigmoid())


EQUATIONS = {"eca": eca, "cbam": cbam, "ge": ge, "gc": gc, "gca": gca, "mask": mask}


@pytest.mark.parametrize(
    ("name", "bias"), [*((name, True) for name in EQUATIONS), ("cbam", False), ("mask", False)]
)
def test_each_block_is_its_equation(name: str, bias: bool):
    torch.manual_seed(0)
    block = build_block(32, SEConfig(block=name, bias=bias)).double().eval()
    for parameter in block.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(3, 32, 5, 7, dtype=torch.float64)
    torch.testing.assert_close(block(x), EQUATIONS[name](block, x), rtol=0, atol=1e-12)


def test_a_highway_gate_weighs_branch_and_shortcut():
    torch.manual_seed(0)
    tail = ResidualTail(8, SEConfig(block="highway")).double().eval()
    x, shortcut = torch.randn(2, 2, 8, 3, 5, dtype=torch.float64).unbind()
    t = points(shortcut, tail.se.transform[0]).sigmoid()
    expected = (t * (x / (1 + tail.bn.eps) ** 0.5) + (1 - t) * shortcut).clamp(min=0)
    torch.testing.assert_close(tail(x, shortcut), expected, rtol=0, atol=1e-14)
    nn.init.constant_(tail.se.transform[0].bias, -1e3)
    torch.testing.assert_close(tail(x, shortcut), shortcut.relu())  # nothing but the shortcut


def trunk_hash(network: Network) -> str:
    own = {key for name, m in network.named_modules() if isinstance(m, AttentionBlock) for key in
           (f"{name}.{inner}" for inner in m.state_dict())}  # fmt: skip
    digest = hashlib.sha256()
    for key, value in network.state_dict().items():
        if key not in own:
            digest.update(key.encode() + value.numpy().tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize("name", ["se_resnet20", "se_shufflenet"])
def test_of_one_seed_the_trunk_is_the_same_around_every_block(name: str):
    hashes, after = {}, {}
    for block in CHOICES["block"]:
        torch.manual_seed(3)
        hashes[block] = trunk_hash(create_model(name, se=SEConfig(block=block)))
        after[block] = float(torch.rand(()))
    assert len(set(hashes.values())) == len(set(after.values())) == 1, hashes
    torch.manual_seed(4)
    assert trunk_hash(create_model(name)) != hashes["se"]


@pytest.mark.parametrize("block", RIVALS)
@pytest.mark.parametrize("name", ["se_resnet18", "se_resnet20"])
def test_three_steps_train_every_parameter_and_no_tail_is_fused(
    name: str, block: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(dispatch, "_not_worthwhile_on_cpu", lambda *_: None)

    def losses(kernels: Kernels) -> tuple[Network, list[float]]:
        torch.manual_seed(0)
        network = create_model(name, se=SEConfig(block=block), num_classes=4)
        set_kernels(network, kernels)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.02)
        images, labels, seen = torch.randn(4, 3, 32, 32), torch.arange(4), []
        for _ in range(3):
            optimizer.zero_grad()
            loss = F.cross_entropy(network(images), labels)
            loss.backward()
            optimizer.step()
            seen.append(loss.item())
        return network, seen

    network, auto = losses("auto")
    assert auto[2] < auto[0]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    assert name == "se_resnet18" or losses("eager")[1] == auto
    with pytest.raises(UserError, match=f"se.block is {block}"):
        set_kernels(network, "triton")


@pytest.mark.parametrize("trunk", [next(iter(family.names)) for family in FAMILIES])
def test_every_family_takes_a_rival_and_a_highway_gate_where_it_has_shortcuts(trunk: str):
    family = next(family for family in FAMILIES if trunk in family.names)
    block = "highway" if "identity" in family.placements else "cbam"
    with torch.device("meta"):
        if block == "cbam":
            with pytest.raises(UserError, match="gates a shortcut and has no place in"):
                create_model(se_twin(trunk), se=SEConfig(block="highway"))
        network, with_se = (create_model(se_twin(trunk), se=SEConfig(block=b)) for b in (block, "se"))
        missing = with_se.se_blocks().keys() - network.se_blocks().keys()
        # The units that concatenate their shortcut have nothing to weigh.
        assert missing == ({"SE_2_1", "SE_3_1", "SE_4_1"} if trunk == "shufflenet" else set())
        size = max(network.min_size, 33)
        network.eval()(torch.empty(1, 3, size, size)).sum().backward()
    assert [key for key, parameter in network.named_parameters() if parameter.grad is None] == []


def test_costs_by_hand():
    """SE-ResNet-20: three blocks each of 16, 32 and 64 channels on maps of 32, 16 and 8 pixels."""
    maps = {16: 32 * 32, 32: 16 * 16, 64: 8 * 8}
    pool = {16: 16 * 16, 32: 8 * 8, 64: 4 * 4}
    hidden = {c: max(1, c // 16) for c in maps}
    expected = {
        "eca": (sum(3 for c in maps), sum(3 * c for c in maps)),
        "ge": (0, 0),
        "highway": (sum(c * c + c for c in maps), sum(c * c * n for c, n in maps.items())),
        # W1, W2 with biases, used twice; a 7x7 convolution of two maps, and its BN.
        "cbam": (
            sum(2 * c * h + h + c + 2 * 49 + 2 for c, h in hidden.items()),
            sum(2 * 2 * c * hidden[c] + 98 * n for c, n in maps.items()),
        ),
        # The attention (C + 1), W1, W2 with biases, a layer norm of two vectors; the context is C products a position.
        "gc": (
            sum(c + 1 + 2 * c * h + 3 * h + c for c, h in hidden.items()),
            sum(2 * c * n + 2 * c * hidden[c] for c, n in maps.items()),
        ),
        "mask": (
            sum(2 * c * h + h + c + 9 * h * h + h for c, h in hidden.items()),
            sum(2 * c * hidden[c] * n + 9 * hidden[c] ** 2 * pool[c] for c, n in maps.items()),
        ),
    }
    expected["gca"] = expected["gc"]
    with torch.device("meta"):
        plain = complexity(create_model("resnet20"))["total"]
        for block, (parameters, macs) in expected.items():
            cost = complexity(create_model("se_resnet20", se=SEConfig(block=block)))["total"]
            assert (cost.se_parameters, cost.se_macs) == (3 * parameters, 3 * macs), block
            assert cost.parameters == plain.parameters + cost.se_parameters
            assert cost.macs == plain.macs + cost.se_macs


@pytest.mark.parametrize(
    ("block", "placement"), [("cbam", "standard"), ("highway", "standard"), ("eca", "post")]
)
def test_folded_for_inference_it_is_the_same(block: str, placement: str):
    torch.manual_seed(0)
    network = create_model("se_resnet50", se=SEConfig(block=block, placement=placement), num_classes=3).eval()
    images = torch.randn(1, 3, 33, 33)
    with torch.no_grad():
        for parameter in (p for b in network.se_blocks().values() for p in b.parameters()):
            parameter.add_(0.1 * torch.randn_like(parameter))
        torch.testing.assert_close(fold_batch_norms(network)(images), network(images), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"block": "ecca"}, 'did you mean "eca"'),
        (
            {"block": "eca", "reduction": 8},
            "se.reduction=8 means nothing to se.block=eca, which reads no axis",
        ),
        ({"block": "ge", "squeeze": "max"}, "drop se.squeeze"),
        ({"block": "gc", "bias": False}, "which reads reduction, round_to: drop se.bias"),
        ({"block": "mask", "gate": "tanh"}, "se.gate=tanh means nothing"),
        ({"block": "highway", "placement": "post"}, "use standard"),
    ],
)
def test_axes_that_mean_nothing_are_refused(values: dict, words: str):
    with pytest.raises(UserError, match=words):
        SEConfig(**values)


def test_an_axis_that_was_set_is_refused_also_at_its_default(compose):
    def check(*typed: str) -> None:
        values = compose("model=se_resnet20", *typed)
        check_run({key: value for key, value in values.items() if key != "resume"}, typed)

    with pytest.raises(UserError, match=r"se.reduction=16 means nothing to se.block=eca"):
        check("se.block=eca", "se.reduction=16")
    with pytest.raises(UserError, match=r"se.bias=False means .* drop se.bias, or the se=NAME that sets it"):
        check("se=ablation", "se.block=eca")


@pytest.mark.parametrize("block", CHOICES["block"])
def test_weights_of_the_same_block_are_taken(tmp_path: Path, block: str):
    trained, start = (create_model("se_resnet20", se=SEConfig(block=block), num_classes=n) for n in (7, 3))
    state = {f"model.{key}": value for key, value in trained.state_dict().items()}
    torch.save({"state_dict": state, "senet": {"model": trained.record}}, tmp_path / "last.ckpt")
    load_weights(str(tmp_path / "last.ckpt"), start)
    ours = start.state_dict()
    assert all(
        torch.equal(ours[key], value) for key, value in trained.state_dict().items() if "head" not in key
    )


def test_branches_of_a_rival_are_dropped_in_no_tail():
    network = create_model("se_resnet20", se=SEConfig(block="eca", stages=(4,)))
    with pytest.raises(UserError, match=r"drops no branch with se\.block=eca"):
        set_drop_path(network, 0.5)
    tails = [module for module in network.modules() if isinstance(module, ResidualTail)]
    assert {tail.drop_path for tail in tails} == {0.0}
    for rate in (-0.1, 1.0, float("nan")):
        with pytest.raises(UserError, match="must be a number from 0 and below 1"):
            set_drop_path(create_model("resnet20"), rate)


def test_weights_of_another_block_are_refused():
    have = create_model("se_resnet20", se=SEConfig(block="gca"))
    needed = create_model("se_resnet20", se=SEConfig(block="gc"))
    with pytest.raises(UserError, match=r"needs se\.block=gc, the network has gca: set se.block=gc"):
        check_architecture(have, needed.record, "FILE")
    old = {key: value for key, value in SEConfig().to_dict().items() if key != "block"}
    check_architecture(
        create_model("se_resnet20"), {**needed.record, "se": old}, "a record from before the axis"
    )
