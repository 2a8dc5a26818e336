"""Compile every Triton kernel of the fused tail for sm_90, without a GPU; print how many variants that were."""

import inspect
from collections.abc import Iterator

from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from triton.runtime.jit import JITFunction

from senet.kernels import blocks, triton_kernels

TARGET = GPUTarget("cuda", 90, 32)
MAPS = {"x", "y", "dy", "dx", "g", "shortcut"}
COUNTS = {"channels", "pixels", "slices", "pixels_per_slice", "rows"}
SCALARS = {"count", "eps", "share"}
OPTIONAL = {
    "merge_kernel": ("gate", "shortcut"),
    "parameter_gradients_kernel": ("gate", "dz", "normalised"),
    "grad_input_kernel": ("gate", "dz"),
}
PASSES = {f"{name}_kernel": name for name in ("moments", "merge", "gradient_sums", "grad_input")}


def compile_variant(kernel: JITFunction, constants: dict[str, object], warps: int) -> None:
    """Compile for bfloat16 maps; arguments in ``constants`` are known when compiling."""
    types = {
        name: "constexpr"
        if name in constants
        else "*bf16"
        if name in MAPS
        else "i32"
        if name in COUNTS
        else "fp32"
        if name in SCALARS
        else "*fp32"
        for name in kernel.arg_names
    }
    positions = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
    compile(ASTSource(kernel, types, positions), target=TARGET, options={"num_warps": warps})


def variants(name: str) -> Iterator[tuple[dict[str, object], int]]:
    """Yield constants and warps: with and without SE and shortcut, one pixel, both layouts."""
    nothing = dict.fromkeys(OPTIONAL.get(name, ()))
    one_pixel = dict.fromkeys(("pixels", "slices", "pixels_per_slice"), 1)  # Triton specialises on 1
    if name not in PASSES:
        yield {"ROWS": 128, "CHANNELS": 8}, 4
        yield {"ROWS": 128, "CHANNELS": 8, **one_pixel, **nothing}, 4
        return
    for channels_last, table in ((True, blocks.CHANNELS_LAST), (False, blocks.CONTIGUOUS)):
        shape = table[PASSES[name]]
        tile = {"PIXELS": shape.pixels, "CHANNELS": shape.channels, "CHANNELS_LAST": channels_last}
        yield tile, shape.warps
        if channels_last:
            yield {**tile, **one_pixel, **nothing}, shape.warps


def main() -> None:
    """Compile everything."""
    compiled = 0
    for name, kernel in inspect.getmembers(triton_kernels):
        if name.endswith("_kernel"):
            for constants, warps in variants(name):
                known = {key: value for key, value in constants.items() if key in kernel.arg_names}
                compile_variant(kernel, known, warps)
                compiled += 1
    print("compiled", compiled)


if __name__ == "__main__":
    main()
