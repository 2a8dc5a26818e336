"""Any network of timm as one of ours, with SE attached where that is possible."""

from typing import Any

import timm
import torch
from torch import Tensor, nn

from senet.errors import UserError, did_you_mean
from senet.integrations import timm_norms  # noqa: F401 (its norms can be synchronised)
from senet.integrations.attach import attach_se, find_stages
from senet.integrations.peers import fetching
from senet.models.network import Network
from senet.nn import AttentionBlock, SEConfig


class TimmNetwork(Network):
    """A network of timm that trains, saves and is counted like ours.

    Args:
        trunk: as ``timm.create_model`` returns it.
        se: attached to every residual block (``attach_se``), or None.

    Attributes:
        attached: the SE blocks by the paper's names.
    """

    def __init__(self, trunk: nn.Module, se: SEConfig | None) -> None:
        nn.Module.__init__(self)
        self.trunk = trunk
        self.record, self.frozen = {}, ()
        cfg = trunk.pretrained_cfg
        assert isinstance(cfg, dict)
        self.input_size, self.min_size = int(cfg["input_size"][-1]), 1
        self.attached = {block.name: block.path for block in attach_se(trunk, se).blocks} if se else {}
        self._stages = {stage: list(blocks) for stage, blocks in find_stages(trunk).items()}

    def check_input(self, size: int) -> None:
        """Refuse images that the trunk does not take, where that costs nothing: before it has storage.

        Raises:
            UserError: for a size that a transformer, for example, was not made for.
        """
        if not next(self.trunk.parameters()).is_meta:
            return
        record: dict[str, Any] = self.record
        training = self.trunk.training
        try:
            self.trunk.eval()(torch.empty(1, record["in_channels"], size, size, device="meta"))
        except AssertionError as error:
            raise UserError(
                f"{record['options']['timm_name']} does not take images of {size} pixels ({error}): it is meant "
                f"for data.preprocessing.size={self.input_size}"
            ) from error
        except Exception:
            pass  # what cannot be done without storage says nothing of the size
        finally:
            self.trunk.train(training)

    def stage_numbers(self) -> tuple[int, ...]:
        """Return the numbers of the residual stages; none for a trunk whose blocks we do not know."""
        return tuple(self._stages)

    def _stage(self, number: int) -> nn.Module:
        return self.trunk.get_submodule(self._stages[number][0].rpartition(".")[0])

    def parts(self) -> dict[str, nn.Module]:
        """Return the stages by number."""
        return {str(number): self._stage(number) for number in self._stages}

    def parts_up_to(self, stage: int) -> tuple[nn.Module, ...]:
        """Return everything that timm registers before the end of stage number ``stage``."""
        return tuple(_before(self.trunk, self._stage(stage)))

    def classifier(self) -> nn.Module:
        """Return timm's classifier."""
        found: nn.Module = self.trunk.get_classifier()  # type: ignore[operator]
        return found

    def forward_stages(self, x: Tensor) -> dict[str, Tensor]:
        """Return the map after every stage, by number."""
        maps: dict[str, Tensor] = {}

        def keep(number: int) -> object:
            def hook(_: nn.Module, __: object, output: Tensor) -> None:
                maps[str(number)] = output

            return self._stage(number).register_forward_hook(hook)

        handles = [keep(number) for number in self._stages]
        self.forward_features(x)
        for handle in handles:
            handle.remove()  # type: ignore[attr-defined]
        return maps

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the last map, before pooling."""
        features: Tensor = self.trunk.forward_features(x)  # type: ignore[operator]
        return features

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, num_classes) of images (B, in_channels, H, W)."""
        logits: Tensor = self.trunk(x)
        return logits

    def se_blocks(self) -> dict[str, AttentionBlock]:
        """Return the attached SE blocks under the paper's names ``SE_{stage}_{block}``."""
        blocks = {
            name: self.trunk.get_submodule(f"{path}.attached_se") for name, path in self.attached.items()
        }
        assert all(isinstance(se, AttentionBlock) for se in blocks.values())
        return blocks  # type: ignore[return-value]

    def initialise(self) -> None:
        """Leave the trunk as timm initialised or loaded it."""


def _before(module: nn.Module, end: nn.Module) -> list[nn.Module]:
    parts: list[nn.Module] = []
    for child in module.children():
        if child is end:
            return [*parts, child]
        if any(inner is end for inner in child.modules()):
            return [*parts, *_before(child, end)]
        parts.append(child)
    return parts


def timm_trunk(
    *,
    timm_name: str | None = None,
    pretrained: bool = False,
    se: SEConfig | None = None,
    num_classes: int = 1000,
    in_channels: int = 3,
    dropout: float = 0.0,
) -> TimmNetwork:
    """Build timm's network ``timm_name``, with ``se`` attached to its residual blocks.

    Args:
        timm_name: e.g. "resnet50", or with a tag "resnet50.a1_in1k".
        pretrained: download timm's weights of the trunk.
        se: SE configuration, or None for timm's network as it is.
        num_classes: outputs of the classifier.
        in_channels: channels of the image.
        dropout: before the classifier.

    Raises:
        UserError: for a name that timm does not have, weights that cannot be had, or a trunk without room.
    """
    if timm_name is None:
        raise UserError(
            "model.timm_name is missing: name one of timm's networks, e.g. model.timm_name=resnet50"
        )
    if not timm.is_model(timm_name):
        raise UserError(f'timm has no network "{timm_name}"{did_you_mean(timm_name, timm.list_models())}')
    with fetching(f"timm's weights of {timm_name}", "set model.pretrained=false"):
        trunk = timm.create_model(
            timm_name,
            # A network without storage is only looked at.
            pretrained=pretrained and torch.get_default_device().type != "meta",
            num_classes=num_classes,
            in_chans=in_channels,
            drop_rate=dropout,
        )
    return TimmNetwork(trunk, se)
