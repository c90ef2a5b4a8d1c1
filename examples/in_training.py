"""From which step on does a net survive 4 bits? A gate every 50 steps keeps the first checkpoint that is shown to."""

import copy

import torch
from torch import nn

import wheeltap as wt

inputs = torch.randn(1500, 8, generator=torch.Generator().manual_seed(0))
classes = (inputs.square().sum(1) > 7.3).long()
torch.manual_seed(0)
net = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
optimizer = torch.optim.AdamW(net.parameters(), lr=0.02)

kept, passed = None, {}
for step in range(1, 151):
    optimizer.zero_grad()
    nn.functional.cross_entropy(net(inputs), classes).backward()
    optimizer.step()
    if step % 50 == 0:
        report = wt.audit(net.eval(), (inputs, classes), schemes="int8,int4-tensor", name="net")
        net.train()
        print(f"step {step}: {report.headline}")
        try:
            report.check(fail_on="may-cost")  # AssertionError unless no loss of 2 points is left possible
        except AssertionError:
            passed[step] = False
        else:
            passed[step] = True
            kept = kept or copy.deepcopy(net)

assert passed == {50: False, 100: True, 150: True} and kept is not None, passed
