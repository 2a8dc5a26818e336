"""Every name of the zoo under every SE variant that means something in it, and refusals of the others."""

import copy
import inspect
import re
from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from senet.errors import UserError
from senet.integrations.inception_resnet_v2 import ResidualInception
from senet.models import Network, create_model, is_se, model_names, plain_twin, se_twin
from senet.models.bn_inception import StridePool
from senet.models.factory import builder
from senet.models.families import ALL, FAMILIES, trunks
from senet.models.shake_shake import Shake, TwoPathShortcut
from senet.models.vgg import VGGHead
from senet.nn import SEConfig, SqueezeExcitation

AXES: list[dict[str, object]] = [
    {"reduction": 4, "bias": False, "squeeze": "max", "gate": "tanh"},
    {"round_to": 8, "squeeze": "none", "gate": "relu"},
    {"stages": "last"},
]


TRUNKS = trunks()
ONE_EACH = [next(iter(family.names)) for family in FAMILIES]
"""A trunk of every family."""


def legal(trunk: str) -> list[dict[str, object]]:
    return [{"placement": placement} for placement in TRUNKS[trunk].placements] + AXES


VARIANTS = [(se_twin(trunk), variant) for trunk in TRUNKS for variant in legal(trunk)]
ILLEGAL = [
    (se_twin(trunk), placement)
    for trunk, family in TRUNKS.items()
    for placement in ALL
    if placement not in family.placements
]


def shapes(module: nn.Module) -> list[tuple[str, torch.Size]]:
    return [(name, value.shape) for name, value in module.state_dict().items()]


def shallow(name: str, se: SEConfig | None = None, **options: object) -> Network:
    """The network on the meta device with one block of every run of equal blocks, and a narrow VGG head."""
    with torch.device("meta"):
        network = create_model(name, se=se, num_classes=5, **options)
        if isinstance(network.head, VGGHead):
            network.head.fc6, network.head.fc7 = nn.Linear(512 * 7 * 7, 8), nn.Linear(8, 4096)
    for number, stage in network.stages.items():
        kept: OrderedDict[str, nn.Module] = OrderedDict()
        for key, block in stage.named_children():
            if not kept or shapes(block) != shapes(next(reversed(kept.values()))):
                kept[key] = block
        network.stages[number] = nn.Sequential(kept)
    return network


def real(network: Network) -> Network:
    """The same network on the CPU with random weights."""
    network.to_empty(device="cpu")
    for module in network.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    network.initialise()
    return network


def odd_size(network: Network) -> int:
    return max(network.min_size, 33)


def images(network: Network, size: int | tuple[int, int], device: str = "meta") -> Tensor:
    height, width = (size, size) if isinstance(size, int) else size
    return torch.rand(2, 3, height, width, device=device)


@pytest.mark.parametrize(("name", "variant"), VARIANTS)
def test_every_legal_variant_trains_all_its_parameters(name: str, variant: dict[str, object]) -> None:
    if "stages" in variant:
        variant = {"stages": shallow(plain_twin(name)).stage_numbers()[-1:]}
    config = SEConfig(**variant)
    network = shallow(name, config)
    assert {se.config for se in network.se_blocks().values()} == {config}
    number_of_blocks = sum(isinstance(m, SqueezeExcitation) for m in network.modules())
    assert len(network.se_blocks()) == number_of_blocks  # no two blocks share a name
    if config.stages is not None:
        assert {key.split("_")[1] for key in network.se_blocks()} == {str(s) for s in config.stages}
    logits = network(images(network, odd_size(network)))
    assert logits.shape == (2, 5)
    logits.sum().backward()
    assert [key for key, p in network.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize(("name", "placement"), ILLEGAL)
def test_a_placement_that_means_nothing_is_refused(name: str, placement: str) -> None:
    with pytest.raises(UserError, match=rf"se\.placement={placement} .*: use ") as refusal:
        shallow(name, SEConfig(placement=placement))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("trunk", TRUNKS)
def test_a_missing_stage_and_a_meaningless_reduction_are_refused(trunk: str) -> None:
    with pytest.raises(UserError, match=r"has stages \["):
        shallow(se_twin(trunk), SEConfig(stages=(99,)))
    with pytest.raises(UserError, match="would have width 1"):
        shallow(se_twin(trunk), SEConfig(reduction=4096))
    with pytest.raises(UserError, match=f"use {se_twin(trunk)}$"):
        create_model(trunk, se=SEConfig())


@pytest.mark.parametrize("name", model_names())
def test_a_step_on_real_images_is_finite_and_survives_a_copy(name: str) -> None:
    torch.manual_seed(0)
    network = real(shallow(name))
    x = images(network, odd_size(network), "cpu")
    F.cross_entropy(network(x), torch.tensor([0, 1])).backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
    network.zero_grad(set_to_none=True)
    network.eval()
    with torch.no_grad():
        torch.testing.assert_close(copy.deepcopy(network)(x), network(x), rtol=0, atol=0)
    assert ("SqueezeExcitation(" in repr(network)) == is_se(name)


@pytest.mark.parametrize("trunk", TRUNKS)
def test_the_twin_has_the_state_of_the_se_network_without_its_se_blocks(trunk: str) -> None:
    with torch.device("meta"):
        plain, with_se = create_model(trunk), create_model(se_twin(trunk))
    assert plain_twin(se_twin(trunk)) == plain_twin(trunk) == trunk
    assert (is_se(trunk), is_se(se_twin(trunk))) == (False, True)
    assert not plain.se_blocks()
    blocks = [n for n, m in with_se.named_modules() if isinstance(m, SqueezeExcitation)]
    assert len(blocks) == len(with_se.se_blocks()) > 0
    rest = [
        (key, shape) for key, shape in shapes(with_se) if not key.startswith(tuple(f"{b}." for b in blocks))
    ]
    assert shapes(plain) == rest
    assert with_se.record["name"] == se_twin(trunk)


@pytest.mark.parametrize("trunk", TRUNKS)
def test_min_size_is_the_smallest_image_that_works(trunk: str) -> None:
    network = shallow(trunk).eval()
    smallest = network.min_size
    for size in (smallest, smallest + 1, (smallest, 97), (131, 98)):
        maps = network.forward_stages(images(network, size))
        assert min(maps.popitem()[1].shape) >= 1
    if smallest == 1:
        return
    too_small = images(network, (smallest - 1, 97))
    with pytest.raises(UserError, match=f"^{trunk} needs images of {smallest} pixels .*not {smallest - 1}"):
        network(too_small)
    with pytest.raises(RuntimeError):
        nn.Sequential(network.stem, *network.stages.values())(too_small)


def test_without_ceil_rounding_the_stem_takes_any_image() -> None:
    network = shallow("se_resnext50_32x4d", stem_pool="pad").eval()
    assert network.min_size == 1
    assert network(images(network, 1)).shape == (2, 5)


@pytest.mark.slow
@pytest.mark.parametrize("trunk", ONE_EACH)
def test_export_traces_the_network(trunk: str) -> None:
    network = shallow(se_twin(trunk)).eval()
    program = torch.export.export(network, (images(network, odd_size(network)),))
    exported = {key for key, _ in program.named_parameters()}
    assert exported == {key for key, _ in network.named_parameters()}
    assert program.module()(images(network, odd_size(network))).shape == (2, 5)


@pytest.mark.skipif(
    torch.__version__.startswith("2.11"), reason="its exporter fixes the parity of sizes before a pool"
)
def test_an_exported_network_takes_other_sizes_and_gives_the_same_logits() -> None:
    network = real(shallow("se_shufflenet")).eval()
    sides = {2: torch.export.Dim("height", min=64, max=256), 3: torch.export.Dim("width", min=64, max=256)}
    program = torch.export.export(network, (torch.rand(2, 3, 64, 96),), dynamic_shapes=(sides,)).module()
    x = torch.rand(2, 3, 70, 101)
    torch.testing.assert_close(program(x), network(x))


@pytest.mark.parametrize("trunk", TRUNKS)
def test_the_options_of_a_family_are_those_of_its_builder(trunk: str) -> None:
    family = TRUNKS[trunk]
    signature = inspect.signature(builder(family, trunk))
    bound = signature.bind(se=None, num_classes=2, in_channels=3, **family.names[trunk], **family.options)
    left = {name for name in signature.parameters if name not in bound.arguments}
    assert left <= {
        "groups",
        "senet",
        "stride_on",
        "branch_relu",
    }  # what one builder makes several families by


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            {"branch_relu": "false"},
            'model.branch_relu="false" must be true or false',
        ),  # which Python takes for true
        ({"branch_relu": 0}, "model.branch_relu=0 must be true or false"),
        ({"dropout": 1.5}, "model.dropout=1.5 must be a number from 0 and below 1"),
        ({"dropout": float("nan")}, "model.dropout=nan must be a number"),
        ({"dropout": None}, "model.dropout=None must be a number"),
        ({"stem_pool": "ciel"}, 'model.stem_pool="ciel" must be "ceil" or "pad"'),
        ({"stride_on": "3"}, 'model.stride_on="3" must be "1x1" or "3x3"'),
        ({"num_classes": 10.0}, "num_classes=10.0 must be a whole number of 1 or more"),
        ({"in_channels": 0}, "in_channels=0 must be a whole number of 1 or more"),
    ],
)
def test_a_value_that_means_nothing_is_refused(values: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=f"^{re.escape(words)}"):
        create_model("resnet18", **values)
    assert create_model("resnet18", dropout=0, branch_relu=True).head.dropout.p == 0


def test_an_unknown_name_is_refused_with_a_hint() -> None:
    for name, hint in (("se_senet154", "senet154"), ("se_bn_inceptoin", "se_bn_inception")):
        with pytest.raises(UserError, match=f'there is no model "{name}"; did you mean "{hint}"'):
            create_model(name)


def input_of_se(network: Network, block: str, x: Tensor) -> Tensor:
    seen: list[Tensor] = []
    network.se_blocks()[block].register_forward_pre_hook(lambda _, args: seen.append(args[0].clone()))
    with torch.no_grad():
        network.eval()(x)
    return seen[0]


def test_vgg_and_mobilenet_squeeze_after_the_relu() -> None:
    for name, block in (("se_vgg16_bn", "SE_1_1"), ("se_mobilenet", "SE_1_1")):
        network = real(shallow(name))
        squeezed = input_of_se(network, block, images(network, 33, "cpu"))
        assert squeezed.min() == 0
        assert squeezed.max() > 0


def test_inception_resnet_gates_the_branch_before_its_scaling() -> None:
    torch.manual_seed(0)
    network = real(shallow("se_inception_resnet_v2")).eval()
    unit = next(m for m in network.modules() if isinstance(m, ResidualInception))
    x = torch.rand(2, 320, 5, 5)
    with torch.no_grad():
        branch = unit.conv(torch.cat([b(x) for b in unit.branches], 1))
        expected = F.relu(x + 0.17 * branch * unit.se_standard.gate(branch))
        torch.testing.assert_close(unit(x), expected)


def test_shufflenet_shuffles_between_its_groups() -> None:
    network = shallow("shufflenet")
    shuffle = next(m for m in network.modules() if isinstance(m, nn.ChannelShuffle))
    shuffled = shuffle(torch.arange(12.0).reshape(1, 12, 1, 1)).flatten().tolist()
    assert shuffled == [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]


def test_the_striding_pool_is_caffes_on_even_sides_and_rounds_up_on_odd_ones() -> None:
    pool, caffe = StridePool(), nn.MaxPool2d(3, 2, ceil_mode=True)
    x = torch.randn(2, 3, 14, 28)
    torch.testing.assert_close(pool(x), caffe(x), rtol=0, atol=0)
    odd = pool(x[:, :, :13, :27])
    assert odd.shape == (2, 3, 7, 14)
    torch.testing.assert_close(odd[:, :, :6, :13], caffe(x[:, :, :13, :27]), rtol=0, atol=0)
    torch.testing.assert_close(odd[:, :, 6, 13], x[:, :, 12, 26], rtol=0, atol=0)


@pytest.mark.parametrize("backward", ["shake", "even"])
def test_shake_draws_a_weight_per_image_from_the_global_generator(backward: str) -> None:
    a, b = (torch.randn(4, 3, 2, 2, dtype=torch.float64, requires_grad=True) for _ in range(2))
    shake = Shake(backward)
    torch.manual_seed(7)
    alpha = torch.rand(4, 1, 1, 1, dtype=torch.float64)
    beta = torch.rand_like(alpha) if backward == "shake" else torch.full_like(alpha, 0.5)
    torch.manual_seed(7)
    mixed = shake(a, b)
    torch.testing.assert_close(mixed, alpha * a + (1 - alpha) * b)
    upstream = torch.randn_like(mixed)
    gradients = torch.autograd.grad(mixed, (a, b), upstream)
    torch.testing.assert_close(gradients, (beta * upstream, (1 - beta) * upstream))
    torch.testing.assert_close(shake.eval()(a, b), (a + b) / 2)


def test_the_two_path_shortcut_sees_pixels_that_its_stride_skips() -> None:
    shortcut = TwoPathShortcut(2, 4, stride=2).eval()
    x = torch.randn(1, 2, 5, 6)
    with torch.no_grad():
        got = shortcut(x) * (1 + shortcut.bn.eps) ** 0.5
        first, second = got.chunk(2, dim=1)
        assert got.shape == (1, 4, 3, 3)
        weight1, weight2 = shortcut.conv1.weight[:, :, 0, 0], shortcut.conv2.weight[:, :, 0, 0]
        for i in range(3):
            for j in range(3):
                torch.testing.assert_close(first[0, :, i, j], weight1 @ F.relu(x[0, :, 2 * i, 2 * j]))
                moved = F.relu(x[0, :, 2 * i - 1, 2 * j - 1]) if i and j else torch.zeros(2)
                torch.testing.assert_close(second[0, :, i, j], weight2 @ moved)


def test_shake_shake_is_deterministic_in_evaluation_and_seeded_in_training() -> None:
    network = real(shallow("se_shake_shake26_2x96d"))
    x = images(network, 9, "cpu")

    def logits(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return network(x)

    assert torch.equal(logits(1), logits(1))
    assert not torch.equal(logits(1), logits(2))
    network.eval()
    assert torch.equal(logits(1), logits(2))
