"""(SE-)WRN-16-8 for 32 x 32 images (Zagoruyko and Komodakis, arXiv 1605.07146; paper Tables 4, 5)."""

from torch import nn

from senet.models.cifar import PreActivationBlock
from senet.models.network import Head, Network, check_stages
from senet.models.resnet import stages
from senet.nn import SEConfig
from senet.nn.blocks import conv

DEPTH, WIDEN = 16, 8


def wrn(*, se: SEConfig | None = None, num_classes: int = 10, in_channels: int = 3) -> Network:
    """Build (SE-)WRN-16-8: basic pre-activation units of 128, 256 and 512 channels, two to a stage.

    Args:
        se: SE configuration, or None for the plain twin.
        num_classes: outputs of the classifier.
        in_channels: channels of the image.
    """
    widths = {stage: WIDEN * 16 * 2 ** (stage - 2) for stage in (2, 3, 4)}
    check_stages(se, widths, f"WRN-{DEPTH}-{WIDEN}")

    def make(stage: int, channels: int, _: int, stride: int) -> tuple[nn.Module, int]:
        width = widths[stage]
        stage_se = se.in_stage(stage) if se else None
        return PreActivationBlock(channels, width, stride=stride, bottleneck=False, se=stage_se), width

    depths = ((DEPTH - 4) // 6,) * 3
    final = nn.Sequential(nn.BatchNorm2d(widths[4]), nn.ReLU(inplace=True))
    head = Head(widths[4], num_classes)
    return Network(conv(in_channels, 16, 3), stages(depths, 16, make), head, final, input_size=32)
