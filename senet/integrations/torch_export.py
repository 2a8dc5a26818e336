"""A ``torch.export`` package, with any batch size."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from senet.files import atomically
from senet.weights.trained import Trained


class TorchExport:
    """``model.pt2``, read back."""

    def __init__(self, file: Path) -> None:
        self.file, self.how = file, f"torch.export of torch {torch.__version__}, any batch size"
        self.module: Any = torch.export.load(file).module()

    def __call__(self, images: Tensor) -> Tensor:
        logits: Tensor = self.module(images)
        return logits


def write(trained: Trained, network: nn.Module, folder: Path) -> TorchExport:
    """Write ``network`` to ``folder/model.pt2``: images (B, C, H, W) in, logits (B, K) out."""
    pre, file = trained.preprocessing, folder / "model.pt2"
    example = torch.zeros(2, pre.channels, pre.size, pre.size)
    shapes = ({0: torch.export.Dim("batch", min=1)},)
    program = torch.export.export(network, (example,), dynamic_shapes=shapes, strict=False)
    with atomically(file) as temporary, temporary.open("wb") as stream:
        torch.export.save(program, stream)
    return TorchExport(file)
