"""Weights that torchvision downloads, e.g. ``torchvision:ResNet50_Weights.IMAGENET1K_V2``."""

from collections.abc import Mapping
from typing import Any

from torchvision.models import get_model_weights

from senet.data.preprocessing import Preprocessing
from senet.errors import UserError, did_you_mean
from senet.integrations.peers import PEERS, fetching, from_torchvision, peer
from senet.weights.record import CLASS_ORDER, WeightRecord, Weights


def read(name: str, network: Mapping[str, Any]) -> Weights:
    """Download the weights ``name``, once.

    Raises:
        UserError: for a name that there is not, or without a network.
    """
    del network  # torchvision's name says which it is
    released = {
        str(weights): (model, weights)
        for model in PEERS["torchvision"]
        for weights in get_model_weights(model)
    }
    if name not in released:
        raise UserError(f'there is no converter for torchvision\'s "{name}"{did_you_mean(name, released)}')
    model, weights = released[name]
    with fetching(f"torchvision:{name}"):
        theirs = weights.get_state_dict(progress=True, check_hash=True, weights_only=True)
    state = from_torchvision(theirs, model)
    images = weights.transforms()
    # torchvision's Inception-v3 turns ImageNet's mean and std into (0.5, 0.5) inside the network.
    inside = model == "inception_v3"
    preprocessing = Preprocessing(
        size=images.crop_size[0],
        resize=images.resize_size[0],
        interpolation=images.interpolation.value,
        mean=(0.5, 0.5, 0.5) if inside else images.mean,
        std=(0.5, 0.5, 0.5) if inside else images.std,
    )
    record = peer("torchvision", model).record(state)
    return Weights(state, WeightRecord(f"torchvision:{name}", record, preprocessing, CLASS_ORDER))
