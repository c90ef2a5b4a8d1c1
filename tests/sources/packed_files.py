"""Folders of packed weights, written number by number as the libraries write them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

Tensors = dict[str, Tensor]
Writer = Callable[[str, Tensor], Tensors]

GROUP = 32
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
NF4 = (
    -1.0, -0.6961928, -0.5250731, -0.3949175, -0.2844414, -0.1847734, -0.0910500, 0.0,
    0.0795803, 0.1609302, 0.2461123, 0.3379152, 0.4407098, 0.5626170, 0.7229568, 1.0,
)  # fmt: skip


def grid(weight: Tensor, bits: int, *, even: bool, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Codes ``[row, column]``, scales and zero points ``[row, group]``: to the nearest in the range of each group."""
    most, codes = 2**bits - 1, torch.zeros(weight.shape, dtype=torch.int64)
    scales, zeros = (torch.zeros(len(weight), int(index.max()) + 1) for _ in range(2))
    for group in range(scales.shape[1]):
        part = weight[:, index == group]
        high, low = part.amax(1).clamp(min=0), part.amin(1).clamp(max=0)
        high, low = (torch.maximum(high, -low), -torch.maximum(high, -low)) if even else (high, low)
        scale = ((high - low) / most).clamp(min=1e-6).half().float()
        zero = torch.full_like(scale, (most + 1) // 2) if even else (-low / scale).round().clamp(1, most)
        codes[:, index == group] = ((part / scale[:, None]).round() + zero[:, None]).clamp(0, most).long()
        scales[:, group], zeros[:, group] = scale, zero
    return codes, scales, zeros.long()


def words(codes: Tensor, bits: int, order: tuple[int, ...] | None = None) -> Tensor:
    """Codes ``[row, column]`` in words of 32 bits ``[row, word]``, one code after another."""
    each = 32 // bits
    made = torch.zeros(len(codes), codes.shape[1] // each, dtype=torch.int64)
    for word in range(made.shape[1]):
        for at in range(each):
            column = word * each + (at if order is None else order[at])
            made[:, word] |= codes[:, column] << (at * bits)
    return torch.where(made >= 2**31, made - 2**32, made).to(torch.int32).contiguous()


def in_groups(columns: int, *, ordered: bool = True) -> Tensor:
    """The group of each column: one after another, or as the order of activations mixes them."""
    index = torch.arange(columns) // GROUP
    return index if ordered else index[torch.randperm(columns, generator=torch.Generator().manual_seed(0))]


def gptq(bits: int = 4, *, even: bool = True, act_order: bool = False) -> Writer:
    """As AutoGPTQ packs (``qlinear_cuda.py``): columns of a weight lie along words, and zeros less one are kept."""

    def write(stem: str, weight: Tensor) -> Tensors:
        index = in_groups(weight.shape[1], ordered=not act_order)
        codes, scales, zeros = grid(weight, bits, even=even, index=index)
        return {
            f"{stem}.qweight": words(codes, bits).T.contiguous(), f"{stem}.scales": scales.T.half().contiguous(),
            f"{stem}.qzeros": words((zeros - 1).T.contiguous(), bits), f"{stem}.g_idx": index.int(),
        }  # fmt: skip

    return write


def awq(*, even: bool = False) -> Writer:
    """As AutoAWQ packs for ``gemm``: rows of a weight lie along words, in its order."""

    def write(stem: str, weight: Tensor) -> Tensors:
        codes, scales, zeros = grid(weight, 4, even=even, index=in_groups(weight.shape[1]))
        return {
            f"{stem}.qweight": words(codes.T.contiguous(), 4, AWQ_ORDER),
            f"{stem}.scales": scales.T.half().contiguous(),
            f"{stem}.qzeros": words(zeros.T.contiguous(), 4, AWQ_ORDER),
        }  # fmt: skip

    return write


def compressed(stem: str, weight: Tensor) -> Tensors:
    """As compressed-tensors packs (``pack_quantized``): along rows."""
    codes, scales, _ = grid(weight, 4, even=True, index=in_groups(weight.shape[1]))
    return {
        f"{stem}.weight_packed": words(codes, 4), f"{stem}.weight_scale": scales.half(),
        f"{stem}.weight_shape": torch.tensor(weight.shape),
    }  # fmt: skip


def float8(stem: str, weight: Tensor) -> Tensors:
    """As compressed-tensors keeps 8-bit floats (``naive_quantized``), a scale a row."""
    scale = weight.abs().amax(1, keepdim=True) / 448.0
    return {f"{stem}.weight": (weight / scale).to(torch.float8_e4m3fn), f"{stem}.weight_scale": scale}


def nf4(stem: str, weight: Tensor) -> Tensors:
    """As bitsandbytes packs 4 bits: blocks of 64 along the whole matrix, the first of two in the high bits."""
    flat, table = weight.reshape(-1, 64), torch.tensor(NF4)
    absmax = flat.abs().amax(1)
    codes = ((flat / absmax[:, None])[..., None] - table).abs().argmin(-1).reshape(-1, 2)
    said = {"quant_type": "nf4", "blocksize": 64, "dtype": "float32", "shape": list(weight.shape)}
    packed, state = (codes[:, 0] * 16 + codes[:, 1]).to(torch.uint8)[:, None], bytearray(json.dumps(said), "utf-8")
    return {
        f"{stem}.weight": packed, f"{stem}.weight.absmax": absmax, f"{stem}.weight.quant_map": table,
        f"{stem}.weight.quant_state.bitsandbytes__nf4": torch.frombuffer(state, dtype=torch.uint8),
    }  # fmt: skip


def torchao(stem: str, weight: Tensor) -> Tensors:
    """As torchao keeps ``Int8Tensor``."""
    scale = weight.abs().amax(1, keepdim=True) / 127.0
    codes = (weight / scale).round().to(torch.int8)
    zero = torch.zeros_like(codes[:, :1])
    return {f"{stem}._weight_qdata": codes, f"{stem}._weight_scale": scale, f"{stem}._weight_zero_point": zero}


HOW: dict[str, tuple[dict[str, Any], Writer]] = {
    "gptq": ({"quant_method": "gptq", "bits": 4, "group_size": GROUP, "desc_act": False}, gptq()),
    "gptq act-order": ({"quant_method": "gptq", "bits": 4, "desc_act": True}, gptq(even=False, act_order=True)),
    "gptq 8 bits": ({"quant_method": "gptq", "bits": 8, "desc_act": True}, gptq(8, act_order=True)),
    "awq": ({"quant_method": "awq", "bits": 4, "group_size": GROUP, "version": "gemm"}, awq()),
    "ct": ({"quant_method": "compressed-tensors", "format": "pack-quantized"}, compressed),
    "ct float8": ({"quant_method": "compressed-tensors", "format": "float-quantized"}, float8),
    "bnb": ({"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, nf4),
    "torchao": ({"quant_method": "torchao"}, torchao),
}  # fmt: skip
"""What a config says, and how matrices are written."""


def write_packed(
    folder: Path, model: Any, kind: str, *, change: Callable[[Tensors], object] = id,
    weights: Callable[[Tensors], object] = id, **said: Any,
) -> Path:  # fmt: skip
    """A folder whose linear layers are packed.

    Args:
        folder: Where it goes; what is there is replaced.
        model: Of transformers.
        kind: One of ``HOW``.
        change: Done to the tensors that are written.
        weights: Done to the weights before they are packed.
        said: Beside what the config says of quantization.
    """
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    how, writer = HOW[kind]
    held: Tensors = load_file(folder / "model.safetensors")
    weights(held)
    made: Tensors = {}
    for name, weight in held.items():
        linear = name.endswith("_proj.weight")
        made |= writer(name.removesuffix(".weight"), weight.float()) if linear else {name: weight}
    change(made)
    save_file(made, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {**how, **said}
    (folder / "config.json").write_text(json.dumps(config))
    return folder
