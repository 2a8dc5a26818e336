"""Whether a state dict has exactly the keys and shapes that a network needs."""

from collections.abc import Iterable, Mapping

from torch import Tensor

from senet.errors import UserError, did_you_mean


def check_keys(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], source: str) -> None:
    """Demand that ``state`` has exactly the keys and shapes of ``expected``.

    Raises:
        UserError: naming the first key that is missing, unknown or of another shape.
    """
    for key, tensor in expected.items():
        if key not in state:
            raise UserError(f'{source} lack "{key}"{_near(key, state.keys() - expected.keys())}')
        if state[key].shape != tensor.shape:
            have, want = tuple(state[key].shape), tuple(tensor.shape)
            raise UserError(f'{source}: "{key}" is {have} and the network needs {want}')
    for key in state:
        if key not in expected:
            raise UserError(
                f'{source} have "{key}", unknown to the network{_near(key, expected.keys() - state.keys())}'
            )


def _near(key: str, others: Iterable[str]) -> str:
    others = set(others)
    return did_you_mean(key, others) if 0 < len(others) <= 20 else ""
