"""State dicts of timm, torchvision and the usual CIFAR code, recognised by their names and shapes alone."""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from senet.data.preprocessing import Preprocessing
from senet.errors import UserError, did_you_mean, in_a_line
from senet.integrations.peers import PEERS, Peer, Source, expected
from senet.integrations.rename import rename, renamer, reverse
from senet.integrations.unwrap import flatten, likely_prefixes
from senet.models import is_se
from senet.nn import SEConfig
from senet.weights.record import check_keys

TABLES: tuple[Source, ...] = ("torchvision", "timm", "cifar")
OWN = "senet_"
"""How our networks are called in timm's registry, and so in the ``config.json`` of an export."""
HEAD = "head.fc."
COUNT = "num_batches_tracked"


class Reason(NamedTuple):
    """What tells other networks apart: a key, the dimensions of its tensor if they matter, the reason in words."""

    pattern: str
    words: str
    dims: int | None = None


REASONS = (
    Reason(r"(^|\.)(cls_token|pos_embed|patch_embed)|attn\.qkv\.", "it is a transformer"),
    Reason(
        r"^conv1\.\d+\.|^layer0\.conv2\.",
        "its stem has three convolutions (the variants called d, s or t), ours one",
    ),
    # In any ResNet that is a BatchNorm; a convolution there follows a pooling.
    Reason(
        r"^layer\d+\.\d+\.downsample\.1\.weight$",
        "its shortcuts pool before they project (the variants called d)",
        dims=4,
    ),
    Reason(r"\.(attn|eca|gc|cbam)\.", "its blocks have another attention than SE"),
    Reason(r"^layer\d+\.\d+\.shortcut\.", "its shortcuts are convolutions, ours have no weights"),
)
"""The first that fits is said."""
NEAR = 0.5
"""Share of differing tensors up to which a network is worth naming as the nearest."""


class Recognised(NamedTuple):
    """A state dict that somebody else named.

    Attributes:
        name: of the network there, with its library, for people.
        peer: which of ours it is.
        state: the weights under our names.
        preprocessing: the images that such networks expect.
        assumed: whether that is what they usually expect, and not what came with these weights.
    """

    name: str
    peer: Peer
    state: dict[str, Tensor]
    preprocessing: Preprocessing
    assumed: bool = True

    def record(self) -> dict[str, Any]:
        """Return the ``Network.record`` that these weights need; 0 classes where they have no classifier."""
        return self.peer.record(self.state)


def recognise(state: Mapping[str, Tensor]) -> Recognised | None:
    """Return which network of which library ``state`` is, converted, or None."""
    for source in TABLES:
        for name, peer in PEERS[source].items():
            ours = _converted(state, peer, name)
            if ours is None or _mismatch(ours, peer, name):
                continue
            also = next((t for t in TABLES if t != source and PEERS[t].get(name) == peer), None)
            title = f"{name} of {source}" + (f" and {also}" if also else "")
            return Recognised(title, peer, ours, default_preprocessing(source, name))
    return None


def _converted(state: Mapping[str, Tensor], peer: Peer, name: str) -> dict[str, Tensor] | None:
    if peer.dropped:
        state = {key: value for key, value in state.items() if not key.startswith(peer.dropped)}
    try:
        return rename(state, peer.rules, name) or None
    except UserError:
        return None


def _mismatch(ours: dict[str, Tensor], peer: Peer, name: str) -> str | None:
    """Return what does not fit; a classifier may be missing, and counters of BN, which old files lack, are added."""
    needed = expected(peer, ours)
    if not any(key.startswith(HEAD) for key in ours):
        needed = {key: value for key, value in needed.items() if not key.startswith(HEAD)}
    if not any(key.endswith(COUNT) for key in ours):
        first = next(iter(ours.values()))
        missing = [key for key in needed if key.endswith(COUNT)]
        ours |= {key: first.new_zeros((), dtype=needed[key].dtype) for key in missing}
    try:
        check_keys(ours, needed, f"the weights of {name}")
    except UserError as error:
        return str(error)
    return None


def refusal(content: object, model: str | None) -> str:
    """Return why no network was found in ``content``, looked at beside the peers of our network ``model``."""
    tensors = flatten(content)
    if not tensors:
        return "this is neither a state dict nor a checkpoint: it holds no tensors"
    for prefix in likely_prefixes(tensors):
        state = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        if words := _reason(state, prefix, model):
            return words
    shown = ", ".join(f'"{key}"' for key in list(tensors)[:2])
    return f"its {len(tensors)} tensors ({shown}, ...) are named as in no network that is known here"


def _reason(state: Mapping[str, Tensor], prefix: str, model: str | None) -> str | None:
    """Return why ``state``, found under a prefix, is no network of ours, if that can be told."""
    if model is None and any(key.startswith("stages.") for key in state) and "head.fc.weight" in state:
        return "it has senet's names, but no record of its network: give a checkpoint, or model.weights= of a run"
    for reason in REASONS:
        for key, tensor in state.items():
            ours = key.startswith(("stem.", "stages."))
            if re.search(reason.pattern, key) and reason.dims in (None, tensor.dim()) and not ours:
                where = f'("{prefix}{key}", {tuple(tensor.shape)})'
                return f"{reason.words} {where}: no network of ours is the same"
    return _nearest(state, prefix, model) or (_nearest(state, prefix, None) if model else None)


def _nearest(state: Mapping[str, Tensor], prefix: str, model: str | None) -> str | None:
    """Return how the most similar peer, of our network ``model`` if that is given, differs from ``state``."""
    found = [
        (share, f"the nearest network is {name} of {source}, but {words}")
        for source in TABLES
        for name, peer in PEERS[source].items()
        if model in (None, peer.model)
        for share, words in _differences(state, prefix, peer)
        if share <= NEAR
    ]
    return min(found)[1] if found else None


def _differences(state: Mapping[str, Tensor], prefix: str, peer: Peer) -> Iterator[tuple[float, str]]:
    """Yield the share of tensors that differ from ``peer``'s and the first of them in words, if most have a place."""
    rename_to, rename_back = renamer(peer.rules), renamer(reverse(peer.rules))
    ours, unknown = {}, []
    for key, tensor in state.items():
        module, _, leaf = key.rpartition(".")
        if (place := rename_to(module)) is not None:
            ours[f"{place}.{leaf}"] = tensor
        elif not peer.dropped or not key.startswith(peer.dropped):
            unknown.append(key)
    if len(unknown) > NEAR * len(state):
        return
    needed = expected(peer, ours)
    for optional in (HEAD, COUNT):
        if not any(optional in key for key in ours):
            needed = {key: value for key, value in needed.items() if optional not in key}

    def theirs(key: str) -> str:
        module, _, leaf = key.rpartition(".")
        return f'"{prefix}{rename_back(module) or module}.{leaf}"'

    shapes = [
        f"{theirs(key)} is {tuple(ours[key].shape)} where that has {tuple(value.shape)}"
        for key, value in needed.items()
        if key in ours and ours[key].shape != value.shape
    ]
    lacks = [f"these weights lack {theirs(key)}" for key in needed if key not in ours]
    more = [f"these weights have {theirs(key)} besides" for key in ours if key not in needed]
    more += [f'these weights have "{prefix}{key}" besides' for key in unknown]
    if words := [*shapes, *lacks, *more]:
        others = f", and {len(words) - 1:,} more differ" if len(words) > 1 else ""
        yield len(words) / max(1, len(needed)), words[0] + others


def default_preprocessing(source: Source, name: str) -> Preprocessing:
    """Return the images that networks ``name`` of ``source`` expect, where a file of weights does not say."""
    if source == "cifar":
        return Preprocessing(32, None)
    if source == "torchvision":
        inception = name == "inception_v3"  # which its transform_input normalises inside the network
        return Preprocessing(299, 342, mean=(0.5,) * 3, std=(0.5,) * 3) if inception else Preprocessing()
    from timm.models import get_pretrained_cfg

    cfg: Any = get_pretrained_cfg(name)
    return Preprocessing() if cfg is None else of_config(cfg.to_dict())


def of_config(cfg: Mapping[str, Any]) -> Preprocessing:
    """Return the preprocessing that a ``pretrained_cfg`` of timm says."""
    channels, height, size = cfg.get("input_size", (3, 224, 224))
    if height != size or cfg.get("crop_mode", "center") == "squash":
        raise UserError("the weights want images squashed or higher than wide; ours are squares cut out")
    crop = cfg.get("crop_pct") or 0.875
    interpolation = cfg.get("interpolation", "bicubic")
    if interpolation not in ("bilinear", "bicubic"):
        raise UserError(f"the weights want {interpolation} interpolation; ours are bilinear and bicubic")
    resize = math.floor(size / crop + 1e-6)
    colour: Any = "RGB" if channels == 3 else "L"
    return Preprocessing(size, resize, interpolation, tuple(cfg["mean"]), tuple(cfg["std"]), colour)


def by_config(config: Mapping[str, Any]) -> Callable[[Mapping[str, Tensor]], Recognised | None]:
    """Return ``recognise`` for weights whose network a ``config.json`` names.

    Raises:
        UserError: if it is none of ours.
    """
    try:
        return _by_config(config)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"config.json is not what timm or senet write: {in_a_line(error)}") from error


def _by_config(config: Mapping[str, Any]) -> Callable[[Mapping[str, Tensor]], Recognised | None]:
    name = str(config["architecture"])
    own = name.startswith(OWN)
    if own:
        peer = _own_peer(name.removeprefix(OWN), config.get("model_args") or {})
    elif name in PEERS["timm"]:
        peer = PEERS["timm"][name]
    else:
        raise UserError(
            f'config.json: there is no network of ours for timm\'s "{name}"{did_you_mean(name, PEERS["timm"])}'
        )
    cfg = {**config, **config.get("pretrained_cfg", {})}
    exact = config.get("senet_preprocessing")
    said = bool(exact) or "mean" in cfg
    images = of_config(cfg) if "mean" in cfg else default_preprocessing("timm", name)
    images = Preprocessing(**exact) if exact else images
    title = f"{peer.model} of senet" if own else f"{name} of timm"

    def tell(state: Mapping[str, Tensor]) -> Recognised | None:
        ours = dict(state) if own else _converted(state, peer, name)
        if ours is None or _mismatch(ours, peer, name):
            return None
        return Recognised(title, peer, ours, images, assumed=not said)

    return tell


def _own_peer(model: str, arguments: Mapping[str, Any]) -> Peer:
    options = {key: value for key, value in arguments.items() if key != "se"}
    se = arguments.get("se")
    return Peer(model, (), options, SEConfig(**se) if se else SEConfig() if is_se(model) else None)
