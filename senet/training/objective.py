"""The training objective: the loss, label smoothing, and the mixing of images and labels."""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic.dataclasses import dataclass
from torch import Tensor

from senet.ranges import NotNegative, Positive, PositiveShare, Share, ShareBelowOne


@dataclass(frozen=True, config={"extra": "forbid"})
class LossConfig:
    """The loss, and how much of it is the word of a teacher (Hinton et al. 2015, arXiv 1503.02531).

    Attributes:
        name: "cross_entropy", or "bce", binary cross-entropy per class, as in timm's recipes A1 and A2.
        label_smoothing: share of the target that is spread over all classes.
        teacher: a run directory, or what ``model.weights`` takes: a trained network that sees the same images.
        teacher_share: of the loss, beside that of the labels.
        temperature: by which both networks' logits are divided before they are compared.
    """

    name: Literal["cross_entropy", "bce"] = "cross_entropy"
    label_smoothing: ShareBelowOne = 0.0
    teacher: str | None = None
    teacher_share: PositiveShare = 0.5
    temperature: Positive = 2.0

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the mean loss of logits (B, K) and labels (B,) or class probabilities (B, K)."""
        logits = logits.float()
        if self.name == "cross_entropy":
            return F.cross_entropy(logits, target, label_smoothing=self.label_smoothing)
        classes = logits.shape[1]
        if target.ndim == 1:
            target = F.one_hot(target, classes)
        smooth = target * (1 - self.label_smoothing) + self.label_smoothing / classes
        return F.binary_cross_entropy_with_logits(logits, smooth.to(logits.dtype))

    def with_teacher(self, loss: Tensor, logits: Tensor, taught: Tensor) -> Tensor:
        """Return ``(1 - share) loss + share T^2 KL(softmax(taught / T) || softmax(logits / T))``, logits (B, K)."""
        ours = F.log_softmax(logits.float() / self.temperature, dim=1)
        theirs = F.log_softmax(taught.float() / self.temperature, dim=1)
        apart = F.kl_div(ours, theirs, reduction="batchmean", log_target=True)
        return torch.lerp(loss, self.temperature**2 * apart, self.teacher_share)


@dataclass(frozen=True, config={"extra": "forbid"})
class MixConfig:
    """Mixup and CutMix; a batch gets one of those that are on, with equal chance.

    Attributes:
        mixup: alpha of mixup, 0 for off.
        cutmix: alpha of CutMix, 0 for off.
        probability: share of the batches that are mixed.
    """

    mixup: NotNegative = 0.0
    cutmix: NotNegative = 0.0
    probability: Share = 1.0

    @property
    def on(self) -> bool:
        """Whether anything is ever mixed."""
        return self.probability > 0 and (self.mixup > 0 or self.cutmix > 0)

    def draw(self, height: int, width: int) -> "Mix | None":
        """Draw how a batch of images of this size is mixed, from torch's generator; None if it is not."""
        if not self.on or torch.rand(()) >= self.probability:
            return None
        from torchvision.transforms import v2  # seconds to import

        kinds: list[v2.Transform] = []
        if self.mixup:
            kinds.append(v2.MixUp(alpha=self.mixup, num_classes=2))
        if self.cutmix:
            kinds.append(v2.CutMix(alpha=self.cutmix, num_classes=2))
        kind = kinds[int(torch.randint(len(kinds), ()))]
        # A white image mixed with a black one shows where the image's own pixels are left, and how much of them.
        white_black = torch.tensor([1.0, 0.0])[:, None, None, None].expand(2, 1, height, width)
        mixed, shares = kind(white_black, torch.tensor([0, 1]))
        return Mix(mixed[0, 0], float(shares[0, 0]))


class Mix(NamedTuple):
    """How each image of a batch is mixed with the one before it.

    ``own`` is the weight of its own pixels, float32 (H, W); ``share`` that of its own label.
    """

    own: Tensor
    share: float

    def labels(self, labels: Tensor, classes: int) -> Tensor:
        """Return the probabilities, (B, classes), for labels (B,)."""
        target = F.one_hot(labels, classes).float()
        return torch.lerp(target.roll(1, 0), target, self.share)
