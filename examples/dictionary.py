"""Is a trained dictionary of features better than random ones? Its vectors are sums of twelve known directions."""

import torch
from torch import nn

import wheeltap as wt

draw = torch.Generator().manual_seed(0)
values = torch.randint(0, 4, (400, 3), generator=draw)  # three attributes with four values each
inputs = nn.functional.one_hot(values, 4).flatten(1).float()
net = nn.Sequential(nn.Linear(12, 16, bias=False), nn.Linear(16, 4, bias=False)).eval()
net[0].weight.data = torch.linalg.qr(torch.randn(16, 12, generator=draw))[0]  # a direction for each value
net[1].weight.data = net[0].weight.data[:, :4].T.contiguous()  # the answer is the first attribute

attributes = {name: values[:, at].numpy() for at, name in enumerate(("shape", "color", "size"))}
task = wt.Task(inputs, values[:, 0], name="attributes").with_factors(attributes)
trained = wt.dictionaries.train(net, task, site="0", features=16, k=3, steps=600)
report = wt.dictionaries.check(net, trained, task, site="0", seeds=4, steps=200, nulls="random")
print(report.headline)
for code in ("WT401", "WT402", "WT403"):
    print(f"{code} {report[code][0].title}: {report[code][0].verdict}")

assert report.headline.startswith("BETTER THAN EVERY NULL")
