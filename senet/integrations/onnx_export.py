"""ONNX, with any batch size, as onnxruntime runs it."""

import logging
import warnings
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import onnxscript
import torch
from torch import Tensor, nn

from senet.files import atomically
from senet.weights.trained import Trained

__all__ = ["OnnxExport", "onnxscript", "write"]


class OnnxExport:
    """``model.onnx``, run by onnxruntime on the CPU."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.how = (
            f"ONNX opset {onnx.load(file, load_external_data=False).opset_import[0].version}, any batch size"
        )
        options: Any = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self.session: Any = onnxruntime.InferenceSession(
            str(file), options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, images: Tensor) -> Tensor:
        return torch.from_numpy(self.session.run(None, {"images": images.contiguous().numpy()})[0])


def write(trained: Trained, network: nn.Module, folder: Path) -> OnnxExport:
    """Write ``network`` to ``folder/model.onnx``: images (B, C, H, W) in, logits (B, K) out."""
    pre, file = trained.preprocessing, folder / "model.onnx"
    example = torch.zeros(2, pre.channels, pre.size, pre.size)
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    exporter.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), atomically(file) as temporary:
            warnings.simplefilter("ignore")  # of the exporter's own code
            program = torch.onnx.export(
                network,
                (example,),
                dynamo=True,
                input_names=["images"],
                output_names=["logits"],
                dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
                verbose=False,
            )
            assert program is not None
            program.save(str(temporary), external_data=False)
            onnx.checker.check_model(onnx.load(temporary))
    finally:
        exporter.setLevel(level)
    return OnnxExport(file)
