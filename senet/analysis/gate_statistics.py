"""What the gates of a network do, per block, class and channel, streamed in one pass (paper section 7)."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from senet.analysis.paper import figure6
from senet.errors import UserError
from senet.models import Network
from senet.nn import SqueezeExcitation

DEAD, ALWAYS_ON = 0.05, 0.95
BINS = 64
"""Of the histograms of gates between 0 and 1."""
PAPER_CLASSES = {"n01443537": "goldfish", "n02690373": "plane", "n02110958": "pug", "n09246464": "cliff"}
"""WordNet ids of the classes in Figure 6 (plane is "airliner")."""


class ClassStatistics:
    """Mean and sd per class and channel of a stream of values, in one pass and in float64.

    Batches are merged by their means and squared deviations (Chan et al. 1983), which loses no digits where
    the gates hardly vary.

    Attributes:
        count: images per class (K,).
        mean: (K, C); 0 for a class without images.
        fired: of an SE block, which of its hidden units were above zero for any image (C/r,).
    """

    fired: Tensor | None = None

    def __init__(self, classes: int, channels: int) -> None:
        self.count = torch.zeros(classes, dtype=torch.float64)
        self.mean = torch.zeros(classes, channels, dtype=torch.float64)
        self._squares = torch.zeros(classes, channels, dtype=torch.float64)
        self._bins = torch.zeros(channels, BINS)
        self._range = (0.0, 0.0)

    def update(self, values: Tensor, labels: Tensor) -> None:
        """Add values (B, C) of images with labels (B,)."""
        values = values.double()
        present, rows = torch.unique(labels, return_inverse=True)
        count = torch.bincount(rows).double()[:, None]  # (P, 1) for the P classes of this batch
        shape = (len(present), values.shape[1])
        mean = torch.zeros(shape, dtype=torch.float64).index_add_(0, rows, values) / count
        squares = torch.zeros(shape, dtype=torch.float64).index_add_(0, rows, (values - mean[rows]) ** 2)
        before, delta = self.count[present, None], mean - self.mean[present]
        total = before + count
        self.mean[present] += delta * count / total
        self._squares[present] += squares + delta**2 * before * count / total
        self.count[present] += count[:, 0]
        self._range = min(self._range[0], float(values.min())), max(self._range[1], float(values.max()))
        bins = (values * BINS).long().clamp(0, BINS - 1).T
        self._bins.scatter_add_(1, bins, torch.ones(bins.shape))

    @property
    def sd(self) -> Tensor:
        """Population sd over the images of each class (K, C)."""
        return (self._squares / self.count.clamp(min=1)[:, None]).sqrt()

    @property
    def entropy(self) -> float | None:
        """Entropy in bits of a channel's gate over the images, in bins of 1/64, averaged over channels.

        0 is a constant gate, 6 one spread evenly over 0 to 1. None for gates that leave this range.
        """
        if self._range[0] < 0 or self._range[1] > 1:
            return None
        shares = self._bins / self._bins.sum(1, keepdim=True)
        return float(-torch.special.xlogy(shares, shares).sum(1).mean() / math.log(2)) + 0.0

    def overall(self) -> tuple[Tensor, Tensor]:
        """Return mean over classes, each weighing the same, and sd over all images (C,), as the paper's "all"."""
        seen = self.count > 0
        share = (self.count / self.count.sum())[:, None]
        pooled = (share * self.mean).sum(0)
        variance = self._squares.sum(0) / self.count.sum() + (share * (self.mean - pooled) ** 2).sum(0)
        return self.mean[seen].mean(0), variance.sqrt()


@contextmanager
def _watched(modules: Mapping[str, nn.Module], see: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Show the output of every module, with its name, to ``see``."""
    with ExitStack() as handles:
        for name, module in modules.items():
            handles.enter_context(module.register_forward_hook(lambda _, __, out, name=name: see(name, out)))
        yield


@contextmanager
def watch_hidden(network: Network) -> Iterator[dict[str, Tensor]]:
    """Note, while images pass, which hidden units of every SE block fire: booleans (C/r,) by the block's name.

    A unit that never fires adds nothing; where none does, the gate is the constant ``f(b2)``.
    """
    blocks = {n: b for n, b in network.se_blocks().items() if isinstance(b, SqueezeExcitation)}
    fired = {
        name: torch.zeros(block.excitation.fc1.out_channels, dtype=torch.bool)
        for name, block in blocks.items()
    }

    def see(name: str, hidden: Tensor) -> None:
        fired[name] |= (hidden > 0).transpose(0, 1).flatten(1).any(1).cpu()

    with _watched({name: block.excitation.fc1 for name, block in blocks.items()}, see):
        yield fired


def dead_units(fired: Mapping[str, Tensor], images: int) -> str:
    """Return in words how many hidden units never fired, and which blocks have a constant gate for it."""
    units = torch.cat(list(fired.values()))
    constant = [name for name, unit in fired.items() if not unit.any()]
    also = f"; the gate is constant in {', '.join(constant)}" if constant else ""
    return f"{int((~units).sum())} of {len(units)} hidden units never fired on {images:,} validation images{also}"


@torch.inference_mode()
def collect_gates(
    network: Network, batches: Iterable[tuple[Tensor, Tensor]], classes: int
) -> dict[str, ClassStatistics]:
    """Return the statistics of every ``SE_{stage}_{block}`` over (images, labels) batches, in one pass.

    Of a gate that is a map, as NoSqueeze's, the mean over positions stands for the image.

    Raises:
        UserError: if the network has no SE block, or a rival without a gate per channel.
    """
    blocks = network.eval().se_blocks()
    if not blocks:
        raise UserError(f"{network.record.get('name', 'this network')} has no SE block and so no gates")
    gatings = {name: block.gating for name, block in blocks.items() if block.gating is not None}
    if not gatings:
        raise UserError(
            f"se.block={next(iter(blocks.values())).config.block} has no gate per channel to show"
        )
    found = {name: ClassStatistics(classes, block.channels) for name, block in blocks.items()}
    seen: dict[str, Tensor] = {}

    def see(name: str, gate: Tensor) -> None:
        seen[name] = gate.reshape(len(gate), blocks[name].channels, -1).mean(2)

    with _watched(gatings, see), watch_hidden(network) as fired:
        for images, labels in batches:
            network(images)
            for name, gate in seen.items():
                found[name].update(gate.cpu(), labels)
    for name, units in fired.items():
        found[name].fired = units
    return found


def sampled_channels(channels: int) -> range:
    """Return the channels that Figure 6 shows, from 0: every ``ceil(C / 50)``-th."""
    return range(0, channels, math.ceil(channels / 50))


def panels(names: Iterable[str]) -> list[str]:
    """Return the blocks that Figure 6 shows: the last of every stage, and the last three of the last stage."""
    stages: dict[str, list[str]] = {}
    for name in names:
        stages.setdefault(name.split("_")[1], []).append(name)
    *earlier, last = stages.values()
    return [blocks[-1] for blocks in earlier] + last[-3:]


@dataclass(frozen=True)
class Saturation:
    """How a block uses its gates; shares and means are over channels.

    Attributes:
        block: its name.
        channels: how many.
        mean: of the gate, each class weighing the same.
        class_sd: sd of the class means (population), averaged over channels: 0 is class-agnostic.
        image_sd: sd over all images, averaged over channels: 0 is a constant scale.
        dead: share of channels whose mean gate is below 0.05 in magnitude.
        always_on: share of channels whose mean gate is above 0.95.
        identity: root mean square of gate - 1 over images and channels: 0 is the identity.
        entropy: of the gate over images, in bits, averaged over channels; None for gates outside 0 to 1.
        hidden: hidden units of the excitation; None for another block than SE.
        dead_hidden: those that never fire.
    """

    block: str
    channels: int
    mean: float
    class_sd: float
    image_sd: float
    dead: float
    always_on: float
    identity: float
    entropy: float | None = None
    hidden: int | None = None
    dead_hidden: int | None = None


def saturation(name: str, statistics: ClassStatistics) -> Saturation:
    """Return one line of the saturation table."""
    mean, sd = statistics.overall()
    by_class = statistics.mean[statistics.count > 0]
    share = (statistics.count / statistics.count.sum())[:, None]
    pooled = (share * statistics.mean).sum(0)
    return Saturation(
        block=name,
        channels=len(mean),
        mean=float(mean.mean()),
        class_sd=float(by_class.std(0, correction=0).mean()),
        image_sd=float(sd.mean()),
        dead=float((mean.abs() < DEAD).double().mean()),
        always_on=float((mean > ALWAYS_ON).double().mean()),
        identity=float((sd**2 + (pooled - 1) ** 2).mean().sqrt()),
        entropy=statistics.entropy,
        hidden=None if statistics.fired is None else len(statistics.fired),
        dead_hidden=None if statistics.fired is None else int((~statistics.fired).sum()),
    )


class PaperPanel(NamedTuple):
    """A panel of the paper's Figure 6, read off the drawing (+- 0.005), over its sampled channels."""

    mean: float
    class_sd: float


def paper_panels() -> dict[str, PaperPanel]:
    """Return the mean of "all" and the sd over the four classes of Figure 6's panels (SE-ResNet-50)."""
    found = {}
    for block, curves in figure6().items():
        four = torch.tensor([curves[name] for name in PAPER_CLASSES.values()], dtype=torch.float64)
        overall = torch.tensor(curves["all"], dtype=torch.float64)
        found[block] = PaperPanel(float(overall.mean()), float(four.std(0, correction=0).mean()))
    return found
