"""(SE-)Inception-v3 on torchvision's modules (Szegedy et al., arXiv 1512.00567)."""

from collections import OrderedDict

from torch import nn
from torchvision.models.inception import BasicConv2d, Inception3

from senet.models.network import Head, Network
from senet.nn import SEConfig, place
from senet.ranges import ShareBelowOne

STEM = ("Conv2d_2a_3x3", "Conv2d_2b_3x3", "maxpool1", "Conv2d_3b_1x1", "Conv2d_4a_3x3", "maxpool2")
STAGES = {
    3: {"5b": 256, "5c": 288, "5d": 288},
    4: {"6a": 768, "6b": 768, "6c": 768, "6d": 768, "6e": 768},
    5: {"7a": 1280, "7b": 2048, "7c": 2048},
}
"""torchvision's modules ``Mixed_*`` and their output channels, by stage."""


def inception_v3(
    *, se: SEConfig | None = None, num_classes: int = 1000, in_channels: int = 3, dropout: ShareBelowOne = 0.5
) -> Network:
    """Build (SE-)Inception-v3 for 299 x 299 images, without the auxiliary classifier.

    Stages 3, 4, 5 are the modules of the 35, 17 and 8 pixel maps (``Mixed_5*``, ``6*``, ``7*`` in
    torchvision), their blocks the modules: ``SE_4_1`` is 6a. SE acts on the concatenated output of all eleven
    modules, the striding 6a and 7a included, as in SE-BN-Inception. There is no shortcut, so that only the
    placement "standard" exists.

    Args:
        se: SE configuration, or None for the plain twin, torchvision's ``inception_v3``.
        num_classes: outputs of the classifier.
        in_channels: channels of the image.
        dropout: before the classifier.
    """
    trunk = Inception3(num_classes=1, aux_logits=False, init_weights=False)
    first = ("Conv2d_1a_3x3", BasicConv2d(in_channels, 32, kernel_size=3, stride=2))
    stem = nn.Sequential(OrderedDict([first, *((layer, getattr(trunk, layer)) for layer in STEM)]))
    stages: dict[int, nn.Module] = {}
    for stage, widths in STAGES.items():
        stage_se = se.in_stage(stage) if se else None
        blocks = nn.Sequential()
        for module, width in widths.items():
            block = OrderedDict(
                mixed=getattr(trunk, f"Mixed_{module}"), se=place(stage_se, "standard", width)
            )
            blocks.add_module(module, nn.Sequential(block))
        stages[stage] = blocks
    return Network(stem, stages, Head(2048, num_classes, dropout), input_size=299, min_size=75)
