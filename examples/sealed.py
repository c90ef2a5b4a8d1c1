"""Is the model that is deployed the one that was audited? Seal it, then verify copies of it."""

import copy

import torch
from torch import nn

import wheeltap as wt

torch.manual_seed(0)
net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 3)).eval()
inputs = torch.randn(100, 8)
task = wt.Task(inputs, net(inputs).argmax(1), name="drawn")
seal = wt.seal.make(wt.Subject(net, name="net"), task).seal

converted = copy.deepcopy(net).half().float()
changed = copy.deepcopy(net)
changed[0].weight.data[5, 3] += 0.3

deployed = {"a copy": copy.deepcopy(net), "through 16 bits": converted, "one weight changed": changed}
found = {name: wt.seal.verify(model, seal) for name, model in deployed.items()}
for name, one in found.items():
    print(f"{name}: {one.verdict}", one.detail)

assert [one.verdict for one in found.values()] == ["identical", "equivalent", "altered"]
