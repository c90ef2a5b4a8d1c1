"""``python -m benchmarks.circuit_memory [--pairs N] [--places N] [--steps N] [--small] [--json FILE]``.

Memory and processor time of EAP-IG on a net shaped like GPT-2 (12 layers, random weights), in a process of its own:
how far its peak rises above the loaded model. Beside it what the public implementation (hannamw/EAP-IG) keeps for the
whole batch at once, the differences of every component ``[pair, place, component, width]``, its gradients not counted.
``--small`` is the net on which that was timed on one thread of a CPU: 2 layers, width 128, 310 edges.
"""

import argparse
import json
import multiprocessing
import resource
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from wheeltap.core.subject import Subject
from wheeltap.sources import hf
from wheeltap.suites.circuits.engine.attribution import attribute
from wheeltap.suites.circuits.engine.edges import EdgeRun, proven
from wheeltap.suites.circuits.pairs import PairBatch

SHAPES: Mapping[str, dict[str, int]] = {
    "GPT-2": {"n_layer": 12, "n_embd": 768, "n_head": 12, "vocab_size": 50_257},
    "small": {"n_layer": 2, "n_embd": 128, "n_head": 8, "vocab_size": 1_000},
}
PUBLIC_SECONDS: Mapping[tuple[str, str], float] = {
    ("small", "eap"): 0.67, ("small", "eap-ig"): 2.5, ("GPT-2", "eap"): 209.5,
}  # fmt: skip
"""CPU-seconds of the public implementation on 64 pairs of 16 places, patched to run on a CPU: measured once; that of
GPT-2 in one process with this one, which took 19.9."""

BAR = 1 / 3
"""Of the public implementation's store."""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--pairs", type=int, default=64)
    arguments.add_argument("--places", type=int, default=16)
    arguments.add_argument("--steps", type=int, default=5)
    arguments.add_argument("--small", action="store_true")
    arguments.add_argument("--json", type=Path)
    asked = arguments.parse_args()
    shape = "small" if asked.small else "GPT-2"
    rows: list[dict[str, Any]] = []
    for method in ("eap", "eap-ig"):
        # A new process each: what one leaves in memory would hide what the next one takes.
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            rows.append(pool.apply(measured, (shape, method, asked.pairs, asked.places, asked.steps)))
        print(said(rows[-1]), flush=True)
    if asked.json is not None:
        asked.json.write_text(json.dumps(rows, indent=1) + "\n")


def measured(shape: str, method: Any, count: int, places: int, steps: int) -> dict[str, Any]:
    """Peak memory and CPU-seconds of one method."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    library = hf.library(needed_for="benchmarks.circuit_memory")
    with hf.quiet(library):
        model = library.GPT2LMHeadModel(library.GPT2Config(**SHAPES[shape])).eval()
    words = SHAPES[shape]["vocab_size"]
    clean, other = (torch.randint(0, words, (count, places)) for _ in range(2))
    corrupted = torch.cat([other[:, :1], clean[:, 1:]], 1)  # the first place differs: no place can be left out
    pairs = PairBatch(clean, corrupted, *(torch.randint(0, words, (count,)) for _ in range(2)))
    subject = Subject(model, name=shape)
    _ = subject.record.fingerprint
    wired = proven(subject, pairs)
    before, began = _peak(reset=True), time.process_time()
    attribute(wired, [pairs], method, steps=steps)
    seconds, rise = time.process_time() - began, _peak() - before
    began = time.process_time()
    EdgeRun(wired).scores(pairs, torch.ones(len(wired.graph.edges)))
    run_seconds, began = time.process_time() - began, time.process_time()
    _plain(model, pairs, steps if method == "eap-ig" else 1)
    store = len(wired.graph.writers) * wired.wiring.width * 4 * count * places
    return {
        "shape": shape, "method": method, "edges": len(wired.graph.edges), "seconds": seconds, "peak_bytes": rise,
        "public_store_bytes": store, "public_seconds": PUBLIC_SECONDS.get((shape, method)),
        "circuit_run_seconds": run_seconds, "plain_seconds": time.process_time() - began,
    }  # fmt: skip


def _plain(model: Any, pairs: PairBatch, steps: int) -> None:
    """The passes that any implementation needs, with nothing done beside them: two forward, then both ways."""
    model.requires_grad_(False)
    embedded = [model.get_input_embeddings()(tokens) for tokens in (pairs.clean, pairs.corrupted)]
    with torch.no_grad():
        for inputs in embedded:
            model(inputs_embeds=inputs, logits_to_keep=1)
    for _ in range(steps):
        start = embedded[0].clone().requires_grad_()
        model(inputs_embeds=start, logits_to_keep=1).logits[:, -1].sum().backward()


def said(row: Mapping[str, Any]) -> str:
    share = row["peak_bytes"] / row["public_store_bytes"]
    public = "" if row["public_seconds"] is None else f" (public {row['public_seconds']} s)"
    return (
        f"{row['shape']} {row['method']}, {row['edges']:,} edges: {row['seconds']:.2f} CPU-s{public}, peak "
        f"+{row['peak_bytes'] / 2**20:.0f} MiB, {share:.2f} of the {row['public_store_bytes'] / 2**20:.0f} MiB that the "
        f"public implementation stores ({'within' if share <= BAR else 'beyond'} {BAR:.2f}); "
        f"passes alone {row['plain_seconds']:.2f} CPU-s, one run of a circuit {row['circuit_run_seconds']:.2f}"
    )


def _peak(*, reset: bool = False) -> int:
    """Largest memory of this process so far, in bytes; of Linux since the last reset."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main()
