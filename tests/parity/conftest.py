"""What "the same network" means: equal maps, logits, gradients and running statistics, in both directions."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from senet.integrations.peers import convert_from, convert_to, peer

RESIDUAL_STAGES = {"2": "layer1", "3": "layer2", "4": "layer3", "5": "layer4"}


def randomise_norms(module: nn.Module) -> None:
    """Give every BN statistics and an affine of its own, so that no BN can stand for another."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.0)
            nn.init.uniform_(norm.bias, -0.3, 0.3)
            nn.init.uniform_(norm.running_mean, -0.3, 0.3)
            nn.init.uniform_(norm.running_var, 0.5, 2.0)


def gradients(module: nn.Module) -> dict[str, Tensor]:
    """Return the state dict with every parameter replaced by its gradient (buffers stay)."""
    state = module.state_dict(keep_vars=True)
    return {key: value if value.grad is None else value.grad for key, value in state.items()}


def assert_same(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], rtol: float) -> None:
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        torch.testing.assert_close(value, theirs[key], rtol=rtol, atol=rtol * theirs[key].abs().max().item())


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def assert_parity() -> Callable[..., None]:
    """Return the check that ``theirs`` and our network of the same weights cannot be told apart.

    In float64: a hundred layers of batch statistics amplify rounding, and there is room for it there.
    """

    def check(
        source: str, name: str, theirs: nn.Module, size: int = 40, maps=RESIDUAL_STAGES, **options
    ) -> None:
        ours_from = partial(convert_from, source, name=name)
        theirs_from = partial(convert_to, source, name=name)
        randomise_norms(theirs)
        theirs.double()
        with torch.device("meta"):
            match = peer(source, name)
            ours = replace(match, options={**match.options, **options}).build(num_classes=10)
        state = {key: value.clone() for key, value in ours_from(theirs.state_dict()).items()}
        ours.load_state_dict(state, assign=True)
        seen: dict[str, Tensor] = {}
        for number, module in maps.items():
            theirs.get_submodule(module).register_forward_hook(
                lambda _m, _i, out, number=number: seen.update({number: out.detach().clone()})
            )
        images = torch.randn(2, 3, size, size, dtype=torch.float64)

        with torch.no_grad():
            expected, logits = theirs.eval()(images), ours.eval()(images)
            features = ours.forward_stages(images)
        torch.testing.assert_close(logits, expected, rtol=1e-12, atol=1e-12)
        assert_same({number: features[number] for number in seen}, seen, rtol=1e-12)

        expected, logits = theirs.train()(images), ours.train()(images)
        torch.testing.assert_close(logits, expected, rtol=1e-9, atol=1e-9)
        (logits.square().sum() + expected.square().sum()).backward()
        assert_same(gradients(ours), ours_from(gradients(theirs)), rtol=1e-8)

        with torch.no_grad():
            for parameter in ours.parameters():
                parameter.mul_(1.01)
            theirs.load_state_dict(theirs_from(ours.state_dict()))
            torch.testing.assert_close(theirs.eval()(images), ours.eval()(images), rtol=1e-12, atol=1e-12)

    return check
