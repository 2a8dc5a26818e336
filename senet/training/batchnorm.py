"""What a run does about BatchNorm: frozen at its end, and statistics estimated anew before an evaluation."""

from pydantic.dataclasses import dataclass
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from senet.errors import UserError
from senet.models import Network
from senet.ranges import Between, Natural
from senet.training.schedules import Progress


@dataclass(frozen=True, config={"extra": "forbid"})
class BatchNormConfig:
    """BatchNorm in training.

    Attributes:
        frozen_from: share of the run from which on BN normalises with its running statistics and keeps them, its
            weights and biases, as in the last epochs of SENet-154 (paper, appendix); ``None`` for never.
        precise_batches: before every evaluation the running statistics become the mean over so many batches of
            training images on each device (PreciseBN, arXiv 2105.07576); 0 keeps the moving average.
    """

    frozen_from: Between | None = None
    precise_batches: Natural = 0

    def __post_init__(self) -> None:
        if self.frozen_from is not None and self.precise_batches:
            raise UserError(
                "batch_norm: precise_batches estimates anew what frozen_from keeps: set one of them alone"
            )

    def frozen(self, at: Progress) -> bool:
        """Whether BN stands still now: a function of the progress alone, so that a resume need not know."""
        return self.frozen_from is not None and at.share >= self.frozen_from


def freeze_batch_norms(network: Network) -> None:
    """Keep every BN in evaluation mode, whatever ``train`` is told."""
    network.frozen = (*network.frozen, *_batch_norms(network))
    network.train(network.training)


def drop_gradients_of_frozen(network: Network) -> None:
    """Take the gradients from every BN in evaluation mode, so that no optimiser moves it.

    ``requires_grad`` stays: DDP waits for every gradient that it knew of at the start.
    """
    for norm in _batch_norms(network):
        if not norm.training:
            for parameter in norm.parameters():
                parameter.grad = None


def _batch_norms(network: nn.Module) -> list[_BatchNorm]:
    return [module for module in network.modules() if isinstance(module, _BatchNorm)]
