"""Files that llama.cpp itself wrote: K-quants are read to the bit."""

from pathlib import Path
from typing import Any

import numpy as np
from gguf_files import by_gguf

import wheeltap as wt
from benchmarks.llama_files import random_llama
from wheeltap.sources.gguf_weights import ShippedGguf
from wheeltap.sources.shipped import compared

TINY = Path(__file__).parents[1] / "data" / "tiny.Q4_K_M.gguf"
"""``python -m benchmarks.llama_files FOLDER --tiny``; the original is ``random_llama(0)``."""


def faults(path: Path, original: Any) -> dict[str, str]:
    rows = compared(ShippedGguf(path, reference=wt.Subject(original)).weights(), original)
    return {row.name: row.fault for row in rows if row.fault != "sound"}


def test_k_quants_of_llama_cpp_are_read_to_the_bit_and_damage_is_named() -> None:
    original = random_llama(0)
    made = dict(ShippedGguf(TINY, reference=wt.Subject(original)).model().named_parameters())
    expected = by_gguf(TINY, original.config)
    assert made.keys() == expected.keys() and len(expected) == 11
    for name, values in expected.items():
        assert np.array_equal(made[name].numpy(), values.reshape(made[name].shape)), name
    assert faults(TINY, original) == {}
    rows = compared(ShippedGguf(TINY, reference=wt.Subject(original)).weights(), original)
    assert {row.format for row in rows} == {"F32", "F16", "Q4_K", "Q6_K"}
    assert all(row.error > 0.0 for row in rows if row.format in ("Q4_K", "Q6_K"))
    original.model.layers[0].mlp.up_proj.weight.mul_(1.3)
    original.model.layers[0].self_attn.q_proj.weight.copy_(random_llama(1).model.layers[0].self_attn.q_proj.weight)
    assert faults(TINY, original) == {"blk.0.ffn_up.weight": "error", "blk.0.attn_q.weight": "error"}
