"""Fine-tuning: a trunk that stands still up to a stage, and parameters apart for two learning rates."""

from torch import nn

from senet.errors import UserError
from senet.models import Network


def freeze(network: Network, up_to_stage: int) -> None:
    """Freeze the stem and all stages up to number ``up_to_stage``.

    Their parameters take no gradient, and they stay in evaluation mode when ``network.train()`` is called:
    BN normalises with its running statistics and does not move them, which a rate of 0 would not achieve.

    Raises:
        UserError: if the network has no such stage.
    """
    numbers = network.stage_numbers()
    if up_to_stage not in numbers:
        raise UserError(
            f"freeze={up_to_stage}: the network has stages {', '.join(map(str, numbers)) or 'none'}"
        )
    network.frozen = network.parts_up_to(up_to_stage)
    for part in network.frozen:
        part.requires_grad_(False)
    network.train(network.training)


def trunk_and_head_parameters(network: Network) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return the learnable parameters of everything before the classifier, and of the classifier."""
    head = [parameter for parameter in network.classifier().parameters() if parameter.requires_grad]
    apart = {id(parameter) for parameter in head}
    trunk = [p for p in network.parameters() if p.requires_grad and id(p) not in apart]
    return trunk, head
