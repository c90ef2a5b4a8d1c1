"""``python -m benchmarks.damaged_files``: does WT003 name the damaged tensor, and no sound one?

Ten kinds of damage in each of four formats, and as many sound files, all written by llama.cpp (see ``llama_files``). A damaged
file counts as found where exactly the damaged tensors are named. In K-quants two flipped bytes stay within what
the format's error may be: that file is the one that is not expected to be found.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import gguf
import numpy as np

from benchmarks.llama_files import quantized, random_llama, write_llama
from wheeltap.core.subject import Subject
from wheeltap.sources.gguf_weights import ShippedGguf
from wheeltap.sources.shipped import compared

FORMATS: Final = ("Q8_0", "Q4_0", "Q5_1", "Q4_K_M")
SIZES: Final = {
    "intermediate_size": 256, "num_hidden_layers": 2, "vocab_size": 64, "num_attention_heads": 8,
    "num_key_value_heads": 4,
}  # fmt: skip
GATE, UP, DOWN = "blk.0.ffn_gate.weight", "blk.0.ffn_up.weight", "blk.1.ffn_up.weight"
LATER: Final = {f"blk.1.ffn_{one}.weight" for one in ("gate", "up", "down")}

Values = np.ndarray[Any, Any]


def again(values: Values) -> Values:
    """Rows permuted once more, as llama.cpp has those of queries."""
    return values.reshape(8, 2, -1, values.shape[1]).swapaxes(1, 2).reshape(values.shape)


def stepped(path: Path, name: str) -> None:
    """Every stored number of a tensor one step higher: a zero point that is off by one."""
    tensor = next(one for one in gguf.GGUFReader(path, "r+").tensors if one.name == name)
    kind, data = tensor.tensor_type.name, tensor.data
    blocks = data.reshape(-1, {"Q8_0": 34, "Q4_0": 18, "Q5_1": 24, "Q4_K": 144}[kind])
    if kind == "Q8_0":
        codes = blocks[:, 2:].view(np.int8)
        codes[...] = np.minimum(codes.astype(int) + 1, 127)
    elif kind == "Q5_1":  # scale and least value
        ends = blocks[:, :4].view(np.float16)
        ends[:, 1] += ends[:, 0]
    else:
        codes = blocks[:, 16 if kind == "Q4_K" else 2 :]
        codes[...] = np.minimum((codes & 15) + 1, 15) | (np.minimum((codes >> 4) + 1, 15) << 4)
    data.flush()


def flipped(path: Path, name: str) -> None:
    """Two bytes of a tensor inverted."""
    tensor = next(one for one in gguf.GGUFReader(path, "r+").tensors if one.name == name)
    flat = tensor.data.reshape(-1)
    flat[np.random.default_rng(0).integers(0, len(flat), 2)] ^= 0xFF
    tensor.data.flush()


def damages(other: Any, original: Any) -> dict[str, tuple[dict[str, Callable[[Values], Values]], str, set[str]]]:
    """By kind: what is done to tensors, what is left out, and the tensors that must be named."""
    swapped = {f"blk.{at}.ffn_up.weight": original.model.layers[1 - at].mlp.up_proj.weight.numpy() for at in (0, 1)}
    strange = other.model.layers[0].mlp.gate_proj.weight.numpy()
    missing = "model.layers.1.mlp.gate_proj.weight"
    return {
        "scale": ({UP: lambda v: 1.1 * v}, "", {UP}),
        "zero point": ({}, "", {UP}),
        "swapped layers": ({name: lambda _, v=v: v for name, v in swapped.items()}, "", set(swapped)),
        "constant from a layer on": ({name: lambda v: np.full_like(v, 0.01) for name in LATER}, "", LATER),
        "permuted twice": ({"blk.0.attn_q.weight": again}, "", {"blk.0.attn_q.weight"}),
        "transposed": ({DOWN: lambda v: v.T}, "", {DOWN}),
        "missing": ({}, "layers.1.mlp.gate_proj", {missing}),
        "norm offset": ({"blk.1.ffn_norm.weight": lambda v: v + 1.0}, "", {"blk.1.ffn_norm.weight"}),
        "two bytes": ({}, "", {UP}),
        "another model's": ({GATE: lambda _: strange}, "", {GATE}),
    }


def named(path: Path, original: Any) -> dict[str, str]:
    """Tensors with a fault."""
    weights = ShippedGguf(path, reference=Subject(original)).weights()
    return {row.name: row.fault for row in compared(weights, original) if row.fault != "sound"}


def main() -> None:
    """Prints what was missed, and how many of each were found."""
    found, false, count = 0, 0, 0
    with tempfile.TemporaryDirectory() as folder:
        whole, file = Path(folder) / "whole.gguf", Path(folder) / "m.gguf"
        for form in FORMATS:
            original, other = random_llama(0, **SIZES), random_llama(1, **SIZES)
            for kind, (change, left_out, expected) in damages(other, original).items():
                write_llama(
                    whole, original, damage=lambda name, v, by=change: by.get(name, lambda w: w)(v), leave_out=left_out
                )
                quantized(whole, form, file)
                if kind in ("zero point", "two bytes"):
                    (stepped if kind == "zero point" else flipped)(file, UP)
                got = named(file, original)
                found, count = found + (got.keys() == expected), count + 1
                if got.keys() != expected:
                    print(f"{form}, {kind}: expected {sorted(expected)}, got {got}")
            for seed in range(10):
                sound = random_llama(2 + seed, **SIZES)
                got = named(quantized(write_llama(whole, sound), form, file), sound)
                false += bool(got)
                if got:
                    print(f"{form}, sound {seed}: {got}")
    print(f"{found} of {count} damaged files found; {false} of {10 * len(FORMATS)} sound files called damaged")


if __name__ == "__main__":
    main()
