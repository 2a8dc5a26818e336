"""Names to networks: the one function that calls the builders, and checks what they built."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any, get_type_hints

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from senet.errors import UserError
from senet.models.families import Family, check_options, find_family, is_se, plain_twin, se_twin
from senet.models.network import Network, check_se
from senet.nn import SEConfig
from senet.plugins import integration
from senet.ranges import Count, in_words


def builder(family: Family, name: str) -> Callable[..., Network]:
    """Import the family's builder.

    Raises:
        UserError: if it needs a package that is not installed; ``name`` is what the user asked for.
    """
    file, _, function = family.builder.partition(":")
    if family.package is None:
        return getattr(import_module(f"senet.models.{file}"), function)
    return getattr(integration(file, package=family.package, asked=f"model={name}"), function)


@contextmanager
def without_memory() -> Iterator[None]:
    """Build networks on the meta device: shapes alone, at once."""
    with torch.device("meta"), _NoDraws():
        yield


class _NoDraws(TorchFunctionMode):
    """Leaves normal draws out: on the meta device they draw nothing, but import torch's compiler: seconds."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        if function in (Tensor.normal_, nn.init.normal_):
            return args[0] if args else given["tensor"]
        return function(*args, **given)


def create_model(
    name: str,
    *,
    se: SEConfig | None = None,
    num_classes: int | None = None,
    in_channels: int = 3,
    **options: object,
) -> Network:
    """Build a network by name.

    Args:
        name: one of ``model_names()``, or "timm" or "se_timm" with the option ``timm_name``. ``se_resnet50``
            and ``resnet50`` come from the same builder.
        se: SE configuration for an ``se_`` name, by default ``SEConfig()``; refused for a plain name.
        num_classes: outputs of the classifier; by default as many as the family's data has.
        in_channels: channels of the image.
        options: the family's own options, e.g. ``stride_on`` of the ResNets.

    Raises:
        UserError: for an unknown name or option, or an SE axis that means nothing in this network.
    """
    family = find_family(name)
    if is_se(name):
        se = se or SEConfig()
    elif se is not None:
        raise UserError(
            f"{name} is the plain twin and has no SE block: drop the se settings or use {se_twin(name)}"
        )
    if num_classes is None:
        num_classes = family.num_classes
    check_options(name, options)
    build, arguments = builder(family, name), family.names[plain_twin(name)]
    _check("num_classes", num_classes, Count)
    _check("in_channels", in_channels, Count)
    for option, value in options.items():
        _check(f"model.{option}", value, get_type_hints(build, include_extras=True).get(option, Any))
    given = {**arguments, **family.options, **options}
    network = build(se=se, num_classes=num_classes, in_channels=in_channels, **given)
    if se is not None:
        check_se(
            se,
            family.title.format(**arguments),
            stages=network.stage_numbers(),
            channels=[block.channels for block in network.se_blocks().values()],
            placements=family.placements,
            why=family.why,
        )
    network.initialise()
    network.record = {
        "name": name,
        "se": se.to_dict() if se else None,
        "num_classes": num_classes,
        "in_channels": in_channels,
        # A network that is rebuilt gets its weights from elsewhere: nothing is downloaded again.
        "options": {key: value for key, value in options.items() if key != "pretrained"},
    }
    return network


def _check(key: str, value: object, kind: Any) -> None:
    """Refuse a value that is not of the type which a builder's signature gives it."""
    try:
        TypeAdapter(kind).validate_python(value, strict=True)
    except ValidationError as error:
        shown = f'"{value}"' if isinstance(value, str) else value
        raise UserError(f"{key}={shown} must be {in_words(kind)}") from error


def rebuild(record: Mapping[str, Any]) -> Network:
    """Build the network whose ``record`` this is, with new weights."""
    model = dict(record)
    se, options = model.pop("se"), model.pop("options")
    return create_model(model.pop("name"), se=SEConfig.from_dict(se) if se else None, **options, **model)
