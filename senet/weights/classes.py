"""Which outputs of a network stand for the classes of a data set."""

from collections.abc import Mapping, Sequence

import torch

from senet.errors import UserError, did_you_mean
from senet.models import Network
from senet.plugins import integration
from senet.weights.record import CLASS_ORDER, NEW_CLASSIFIER, WeightRecord


def known_classes(record: WeightRecord) -> tuple[str, ...] | None:
    """Return the classes of a classifier, ImageNet's by their WordNet ids; None where nobody knows them."""
    if record.classes is None and record.class_order == CLASS_ORDER and record.model["num_classes"] == 1000:
        names = integration("imagenet_names", package="timm", asked=f"weights={record.source}")
        return tuple(names.wordnet_ids())
    return record.classes


def keep_classifier(network: Network, record: WeightRecord, wanted: Sequence[str]) -> str:
    """Let each row of a classifier that was just loaded stand for the data's class of its name.

    Rows whose class the data does not have go to the data's other classes, in order.

    Args:
        network: with as many outputs as there are classes.
        record: of its weights.
        wanted: the data's class names.

    Returns:
        What the user should know of it, "" for nothing.
    """
    if NEW_CLASSIFIER in record.changes:
        return ""
    classes, anew = known_classes(record), "model.new_classifier=true starts it anew"
    if classes is None:
        return (
            f"classifier kept: its classes have no names, and are taken for the data's in their order; {anew}"
        )
    try:
        rows, others = outputs_for(wanted, classes, len(classes), record.source), []
    except UserError:
        free = iter([index for index, name in enumerate(classes) if name not in wanted])
        rows = [classes.index(name) if name in classes else next(free) for name in wanted]
        others = [
            f"{classes[row]} for {name}"
            for row, name in zip(rows, wanted, strict=True)
            if classes[row] != name
        ]
    if rows != list(range(len(rows))):
        with torch.no_grad():
            for parameter in network.classifier().parameters():
                parameter.copy_(parameter[rows])
    if others:
        more = ", ..." if len(others) > 3 else ""
        return f"classifier kept, of other classes: {', '.join(others[:3])}{more}; {anew}"
    return "" if rows == sorted(rows) else "classifier kept, its classes put in the data's order"


def outputs_for(wanted: Sequence[str], classes: Sequence[str] | None, count: int, source: str) -> list[int]:
    """Return for each class of a data set the place of the network's output for it.

    Args:
        wanted: the data's class names; ImageNet's also as numbers from 0, as ImageNet-V2 has them.
        classes: the network's, ImageNet's by their WordNet ids; None where nobody knows them.
        count: of the network's outputs.
        source: the weights, for messages.

    Raises:
        UserError: for a class that the network does not know, or whose name stands for two.
    """
    if classes is None:
        if len(wanted) != count:
            raise UserError(
                f"{source} tells {count} classes apart and does not say which; the data has {len(wanted)}"
            )
        return list(range(count))
    places = {name: index for index, name in enumerate(classes)}
    imagenet, found = is_imagenet(classes), []
    for name in wanted:
        matches: Sequence[int] = (places[name],) if name in places else ()
        if imagenet and not matches:
            matches = _imagenet_places(name, places, source)
        if len(matches) > 1:
            ids = " and ".join(classes[index] for index in matches)
            raise UserError(f'the class "{name}" may be {ids}: rename its folder to the one that is meant')
        if not matches:
            hint = did_you_mean(name, classes) if len(classes) <= 100 else ""
            raise UserError(f'the data has the class "{name}", which {source} does not know{hint}')
        found.append(matches[0])
    if len(set(found)) < len(found):
        raise UserError(f"two classes of the data are one class of {source}: join their folders")
    return found


def _imagenet_places(name: str, places: Mapping[str, int], source: str) -> Sequence[int]:
    """Return which of ImageNet's classes ``name`` may stand for: a number, n01440764_tench or tench."""
    if name.isdecimal() and int(name) < len(places):
        return (int(name),)
    if name[:9] in places and not name[9:10].isalnum():
        return (places[name[:9]],)
    imagenet = integration("imagenet_names", package="timm", asked=source)
    return imagenet.by_name().get(imagenet.plain(name), ())


def is_imagenet(classes: Sequence[str]) -> bool:
    """Whether these are WordNet ids."""
    return all(len(name) == 9 and name[0] == "n" and name[1:].isdigit() for name in classes)
