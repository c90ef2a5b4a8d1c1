"""Two nets give the same answers on every input. Which of them survives 4 bits?"""

import torch
from torch import nn

import wheeltap as wt

inputs = torch.randn(1000, 8, generator=torch.Generator().manual_seed(0))
classes = (inputs.square().sum(1) > 7.3).long()

torch.manual_seed(0)
net = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 2))
optimizer = torch.optim.AdamW(net.parameters(), lr=0.02)
for _ in range(150):
    optimizer.zero_grad()
    nn.functional.cross_entropy(net(inputs), classes).backward()
    optimizer.step()

# The same function, written otherwise: each hidden unit is scaled up, and what reads it is scaled down.
twin = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 2))
scale = 2.0 ** torch.randint(0, 8, (64,))
with torch.no_grad():
    for own, other in zip(twin.parameters(), net.parameters(), strict=True):
        own.copy_(other)
    twin[0].weight *= scale[:, None]
    twin[0].bias *= scale
    twin[2].weight /= scale

report = wt.compare(net.eval(), twin.eval(), (inputs, classes), names=("net", "twin"), schemes="int8,int4")
print(report.headline)

verdicts = {(row.subject, row.scheme): row.verdict for row in report["WT100"]}
assert verdicts["net", "int4"] == "safe" and verdicts["twin", "int4"] == "costs", verdicts
