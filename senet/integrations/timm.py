"""The zoo in timm's registry: after ``import senet.integrations.timm``, ``timm.create_model("senet_se_resnet50")``.

Networks made this way are ours, under our names, with the methods that timm's scripts and detectors call:
``features_only=True``, ``reset_classifier``, ``get_classifier``, ``forward_features``, ``forward_head``,
``forward_intermediates``. Further arguments are those of ``senet.create_model``: ``se``, ``stride_on``, ...
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any

import torch
from timm.models import build_model_with_cfg, register_model, register_notrace_module
from torch import Tensor, nn

from senet.errors import UserError
from senet.models import Network, create_model, model_names, without_memory
from senet.nn import ResidualTail, SEConfig

__all__: list[str] = ["TimmReady"]

# timm wants the logits of its traced networks bit for bit: a tail that is one step then runs as it does untraced.
register_notrace_module(ResidualTail)


class TimmReady(Network):
    """One of our networks with timm's methods. Made by ``TimmReady.of``, not by its constructor.

    Attributes:
        num_classes: outputs of the classifier; 0 where it was removed.
        num_features: channels of ``forward_features``.
        head_hidden_size: inputs of the classifier.
        global_pool: "avg", or "" for a head that returns the last map.
        feature_info: for every map that ``forward_intermediates`` returns, its channels, its module, and by
            how much it is smaller than the image (timm calls that "reduction").
    """

    num_classes: int
    num_features: int
    head_hidden_size: int
    global_pool: str
    feature_info: list[dict[str, Any]]

    @classmethod
    def of(cls, network: Network, feature_info: list[dict[str, Any]], num_features: int) -> "TimmReady":
        """Give ``network`` timm's methods, in place."""
        network.__class__ = cls
        assert isinstance(network, TimmReady)
        network.feature_info = [dict(info) for info in feature_info]
        network.num_features = num_features
        network.head_hidden_size = network.head.fc.in_features
        network.num_classes = network.head.fc.out_features
        network.global_pool = "avg"
        return network

    def get_classifier(self, name_only: bool = False) -> nn.Module | str:
        """Return the classifier, or its name."""
        return "head.fc" if name_only else self.head.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier by a new one; by none for 0, and with ``global_pool=""`` the pooling, too."""
        if global_pool not in (None, "", "avg"):
            raise UserError(
                f'global_pool="{global_pool}": our heads pool by average; use "avg", or "" for none'
            )
        self.num_classes = num_classes
        self.global_pool = self.global_pool if global_pool is None else global_pool
        like = next(self.parameters())
        classifier: nn.Module = nn.Identity()
        if num_classes:
            classifier = nn.Linear(self.head_hidden_size, num_classes, device=like.device, dtype=like.dtype)
            nn.init.normal_(classifier.weight, std=0.01)
            nn.init.zeros_(classifier.bias)
        self.head.fc = classifier  # type: ignore[assignment]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Return the logits of the last map, or with ``pre_logits`` what the classifier sees."""
        if not self.global_pool:
            return x
        x = self.head.descriptor(x)
        logits: Tensor = x if pre_logits else self.head.fc(x)
        return logits

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, or what is left of the head."""
        return self.forward_head(self.forward_features(x))

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Return the maps of ``feature_info`` at ``indices`` (an integer: the last n), and the last map.

        Raises:
            UserError: for ``norm``, which our stages have no use for, or an index that is out of range.
        """
        if norm or output_fmt != "NCHW":
            raise UserError("our maps are (B, C, H, W) as the stages give them: norm=False, output_fmt=NCHW")
        taken = self._take(indices)
        wanted = [self.feature_info[index]["module"].rpartition(".")[2] for index in taken]
        maps = {"stem": self._enter(x)}
        x = maps["stem"]
        for name, stage in self.stages.items():
            if stop_early and maps.keys() >= set(wanted):
                break
            x = maps[name] = stage(x)
        intermediates = [maps[name] for name in wanted]
        return intermediates if intermediates_only else (self.final(x), intermediates)

    def _take(self, indices: int | Sequence[int] | None) -> list[int]:
        count = len(self.feature_info)
        if indices is None:
            return list(range(count))
        chosen = range(-indices, 0) if isinstance(indices, int) else indices
        taken = [index + count if index < 0 else index for index in chosen]
        if not taken or min(taken) < 0 or max(taken) >= count:
            raise UserError(f"out_indices={indices}: this network has {count} maps, 0 to {count - 1}")
        return taken

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop what lies behind the last of the maps ``indices``, and the head."""
        del prune_norm
        taken = self._take(indices)
        last = self.feature_info[max(taken)]
        keep = last["module"].rpartition(".")[2]
        names = list(self.stages)
        for name in names[names.index(keep) + 1 if keep in names else 0 :]:
            del self.stages[name]
        if max(taken) < len(self.feature_info) - 1 or prune_head:
            self.final = nn.Identity()
            self.num_features = last["num_chs"]
            self.reset_classifier(0, "")
        return taken

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """Return the layer groups for timm's layer-wise rates: the stem and every stage."""
        del coarse
        return {"stem": r"^stem", "blocks": r"^stages\.(\d+)"}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Refuse gradient checkpointing, which our networks do not have."""
        assert not enable, "our networks have no gradient checkpointing"


@cache
def _describe(name: str) -> dict[str, Any]:
    """Return timm's configuration of a network of the zoo, and the maps that it offers as features."""
    with without_memory():
        network = create_model(name).eval()
    size = network.input_size
    image = torch.empty(1, 3, size, size, device="meta")
    maps = network.forward_stages(image)
    if isinstance(network.stem, nn.Identity):
        del maps["stem"]
    channels: Any = network.record["num_classes"]
    first = next(key for key, value in network.state_dict().items() if value.ndim == 4)
    return {
        "features": [
            {
                "num_chs": value.shape[1],
                "reduction": 2 ** round(math.log2(size / value.shape[-1])),
                "module": key if key == "stem" else f"stages.{key}",
            }
            for key, value in maps.items()
        ],
        "num_features": network.forward_features(image).shape[1],
        "cfg": {
            "architecture": f"senet_{name}",
            "num_classes": channels,
            "input_size": (3, size, size),
            "pool_size": tuple(network.forward_features(image).shape[2:]),
            "interpolation": "bilinear",
            "crop_pct": 1.0 if size < 64 else 0.875,
            "first_conv": first.removesuffix(".weight"),
            "classifier": "head.fc",
        },
    }


def _build(
    name: str,
    num_classes: int,
    in_chans: int = 3,
    drop_rate: float = 0.0,
    global_pool: str = "avg",
    **options: Any,
) -> TimmReady:
    if drop_rate:
        options["dropout"] = drop_rate
    if isinstance(options.get("se"), Mapping):  # from the config.json of an export
        options["se"] = SEConfig(**options["se"])
    network = create_model(name, num_classes=max(1, num_classes), in_channels=in_chans, **options)
    described = _describe(name)
    ready = TimmReady.of(network, described["features"], described["num_features"])
    if num_classes == 0 or global_pool != "avg":
        ready.reset_classifier(num_classes, global_pool)
    return ready


def _entrypoint(name: str) -> Callable[..., nn.Module]:
    def build(
        pretrained: bool = False,
        pretrained_cfg: dict[str, Any] | None = None,
        pretrained_cfg_overlay: dict[str, Any] | None = None,
        **options: Any,
    ) -> nn.Module:
        if pretrained and not (pretrained_cfg or {}).get("file"):  # which timm's "local-dir:" gives
            raise UserError(f"senet_{name} has no weights to download: use checkpoint_path=FILE")
        described = _describe(name)
        model: nn.Module = build_model_with_cfg(
            partial(_build, name),
            f"senet_{name}",
            pretrained=pretrained,
            pretrained_cfg=pretrained_cfg or described["cfg"],
            pretrained_cfg_overlay=pretrained_cfg_overlay,
            feature_cfg={"feature_cls": "getter", "out_indices": tuple(range(len(described["features"])))},
            **options,
        )
        return model

    build.__name__ = build.__qualname__ = f"senet_{name}"
    build.__doc__ = f"Build our ``{name}`` with timm's methods."
    return build


for _name in model_names():
    globals()[f"senet_{_name}"] = register_model(_entrypoint(_name))
