"""How torchvision, timm and the authors' Caffe networks name the modules of our networks."""

from senet.integrations.inception_resnet_v2 import STAGES as RESIDUAL_STAGES
from senet.integrations.inception_v3 import STAGES as INCEPTION_STAGES
from senet.integrations.rename import Rule
from senet.models.bn_inception import PLANS
from senet.models.resnet import BLOCKS
from senet.models.vgg import PLAN as VGG_PLAN


def _residual(stem: list[Rule], convs: int, se: str, fc: str) -> tuple[Rule, ...]:
    rules = [*stem, (fc, "head.fc")]
    for stage in range(2, 6):
        theirs, ours = f"layer{stage - 1}.#", f"stages.{stage}.#"
        rules += [(f"{theirs}.conv{i}", f"{ours}.conv{i}") for i in range(1, convs + 1)]
        rules += [(f"{theirs}.bn{i}", f"{ours}.bn{i}") for i in range(1, convs)]
        rules += [(f"{theirs}.bn{convs}", f"{ours}.tail.bn")]
        rules += [(f"{theirs}.downsample.{i}", f"{ours}.shortcut.{i}") for i in (0, 1)]
        rules += [(f"{theirs}.{se}.fc{i}", f"{ours}.tail.se.excitation.fc{i}") for i in (1, 2)]
    return tuple(rules)


def resnet(convs: int) -> tuple[Rule, ...]:
    """Return the names of torchvision's ResNets and timm's ``(se)resnet*``, ``convs`` to a block."""
    return _residual([("conv1", "stem.0"), ("bn1", "stem.1")], convs, "se", "fc")


def legacy(convs: int, stem_convs: int = 1) -> tuple[Rule, ...]:
    """Return the names of timm's ``legacy_se*``, Cadene's ports of the authors' networks."""
    stem = []
    for index in range(stem_convs):
        stem += [(f"layer0.conv{index + 1}", f"stem.{3 * index}")]
        stem += [(f"layer0.bn{index + 1}", f"stem.{3 * index + 1}")]
    return _residual(stem, convs, "se_module", "last_linear")


def cifar_resnet() -> tuple[Rule, ...]:
    """Return the names of the CIFAR ResNets of akamaster/pytorch_resnet_cifar10, which many copied."""
    rules = [("conv1", "stem.0"), ("bn1", "stem.1"), ("linear", "head.fc")]
    for stage in (2, 3, 4):
        theirs, ours = f"layer{stage - 1}.#", f"stages.{stage}.#"
        rules += [(f"{theirs}.conv1", f"{ours}.conv1"), (f"{theirs}.conv2", f"{ours}.conv2")]
        rules += [(f"{theirs}.bn1", f"{ours}.bn1"), (f"{theirs}.bn2", f"{ours}.tail.bn")]
    return tuple(rules)


def vgg16_bn() -> tuple[Rule, ...]:
    """Return the names of torchvision's ``vgg16_bn``, which numbers every layer, pools and ReLUs included."""
    rules = [("classifier.0", "head.fc6"), ("classifier.3", "head.fc7"), ("classifier.6", "head.fc")]
    layer = 0
    for stage, widths in VGG_PLAN.items():
        for index in range(1, len(widths) + 1):
            unit = f"stages.{stage}.conv{index}.unit"
            rules += [(f"features.{layer}", f"{unit}.conv"), (f"features.{layer + 1}", f"{unit}.bn")]
            layer += 3
        layer += 1
    return tuple(rules)


def inception_v3() -> tuple[Rule, ...]:
    """Return the names of torchvision's and timm's ``inception_v3`` without its auxiliary classifier."""
    rules = [("fc", "head.fc"), ("Conv2d_*", "stem.Conv2d_*")]
    for stage, modules in INCEPTION_STAGES.items():
        rules += [(f"Mixed_{module}.*", f"stages.{stage}.{module}.mixed.*") for module in modules]
    return tuple(rules)


def inception_resnet_v2() -> tuple[Rule, ...]:
    """Return the names of timm's ``inception_resnet_v2``; our block 0 of a stage is its ``mixed_*``."""
    rules = [("classif", "head.fc"), ("conv2d_7b.*", "final.*")]
    for stage, (mixed, repeat, _) in RESIDUAL_STAGES.items():
        rules.append((f"{mixed}.*", f"stages.{stage}.0.*"))
        units = [f"{repeat}.{i}" for i in range(RESIDUAL_UNITS[stage])]
        units += ["block8"] if stage == 5 else []
        for block, unit in enumerate(units, start=1):
            rules += [(f"{unit}.branch#.*", f"stages.{stage}.{block}.branches.#.*")]
            rules += [(f"{unit}.conv2d", f"stages.{stage}.{block}.conv")]
    return (*rules, ("conv2d_*", "stem.conv2d_*"))


RESIDUAL_UNITS = {3: 10, 4: 20, 5: 9}
"""Units that timm numbers in each stage of Inception-ResNet-v2; its last one has a name of its own."""


def _caffe_conv(theirs: str, conv: str, bn: str) -> list[Rule]:
    return [(theirs, conv), (f"{theirs}/bn", bn)]


def caffe_residual(stem: tuple[str, ...], blocks: tuple[int, ...]) -> tuple[Rule, ...]:
    """Return the layer names of the authors' SE-ResNets, SE-ResNeXts and SENet-154."""
    rules = [("classifier", "head.fc")]
    for index, layer in enumerate(stem):
        rules += _caffe_conv(layer, f"stem.{3 * index}", f"stem.{3 * index + 1}")
    for stage, depth in enumerate(blocks, start=2):
        for block in range(depth):
            theirs, ours = f"conv{stage}_{block + 1}", f"stages.{stage}.{block}"
            rules += _caffe_conv(f"{theirs}_1x1_reduce", f"{ours}.conv1", f"{ours}.bn1")
            rules += _caffe_conv(f"{theirs}_3x3", f"{ours}.conv2", f"{ours}.bn2")
            rules += _caffe_conv(f"{theirs}_1x1_increase", f"{ours}.conv3", f"{ours}.tail.bn")
            rules += _caffe_conv(f"{theirs}_1x1_proj", f"{ours}.shortcut.0", f"{ours}.shortcut.1")
            rules += [(f"{theirs}_1x1_down", f"{ours}.tail.se.excitation.fc1")]
            rules += [(f"{theirs}_1x1_up", f"{ours}.tail.se.excitation.fc2")]
    return tuple(rules)


def caffe_resnet(depth: int) -> tuple[Rule, ...]:
    """Return the layer names of SE-ResNet and SE-ResNeXt of ``depth``."""
    return caffe_residual(("conv1/7x7_s2",), BLOCKS[depth])


def caffe_senet154() -> tuple[Rule, ...]:
    """Return the layer names of SENet-154."""
    return caffe_residual(("conv1_1/3x3_s2", "conv1_2/3x3", "conv1_3/3x3"), BLOCKS[152])


_BRANCHES = {
    "1x1": "1x1",
    "3x3_reduce": "3x3.0",
    "3x3": "3x3.1",
    "double3x3_reduce": "double3x3.0",
    "double3x3a": "double3x3.1",
    "double3x3b": "double3x3.2",
    "pool_proj": "pool.1",
}


def caffe_bn_inception() -> tuple[Rule, ...]:
    """Return the layer names of SE-BN-Inception."""
    rules = [("classifier", "head.fc")]
    for index, layer in {0: "conv1/7x7_s2", 2: "conv2/3x3_reduce", 3: "conv2/3x3"}.items():
        rules += _caffe_conv(layer, f"stem.{index}.conv", f"stem.{index}.bn")
    for stage, plans in PLANS.items():
        for letter in plans:
            theirs, ours = f"inception_{stage}{letter}", f"stages.{stage}.{letter}"
            for branch, unit in _BRANCHES.items():
                unit = f"{ours}.branches.{unit}"
                rules += _caffe_conv(f"{theirs}/{branch}", f"{unit}.conv", f"{unit}.bn")
            rules += [(f"{theirs}_1x1_down", f"{ours}.se.excitation.fc1")]
            rules += [(f"{theirs}_1x1_up", f"{ours}.se.excitation.fc2")]
    return tuple(rules)
