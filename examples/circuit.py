"""Which edges of a decoder carry a task, and is that account of it evidence? The task: repeat the second token."""

import json
import tempfile
from pathlib import Path

import torch
from torch import nn

import wheeltap as wt
from wheeltap.suites.circuits.nets.sparse_transformer import Shape, SparseTransformer

torch.manual_seed(0)
net = SparseTransformer(Shape(vocabulary=8, places=4, layers=1, width=16, head=8, bigram=False))
prompts = torch.cartesian_prod(*[torch.arange(7)] * 3, torch.tensor([7]))
optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
for _ in range(300):
    optimizer.zero_grad()
    nn.functional.cross_entropy(net(prompts)[:, -1], prompts[:, 1]).backward()
    optimizer.step()

pairs = Path(tempfile.mkdtemp()) / "pairs.jsonl"
with pairs.open("w") as file:
    for prompt in prompts[torch.randperm(len(prompts))[:48]].tolist():
        other = (prompt[1] + prompt[0] % 6 + 1) % 7
        changed = [prompt[0], other, *prompt[2:]]
        file.write(json.dumps({"clean": prompt, "corrupted": changed, "answer": prompt[1], "wrong": other}) + "\n")

found = wt.circuits.find(net.eval(), wt.circuits.task(pairs), method="eap")
edges = [name for name, kept in zip(found.circuit.graph.edges, found.circuit.kept, strict=True) if kept]
print(found.report.headline)
print(f"{len(edges)} of {len(found.circuit.graph.edges)} edges:", *edges)
for claim in found.report["WT303"]:
    print(f"{claim.title}: {claim.verdict}")

assert found.report["WT303"][0].verdict == "better than these" and not found.undecided
