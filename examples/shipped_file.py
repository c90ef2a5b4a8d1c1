"""Is the file that is shipped what was benchmarked? One exporter wrote it well, another one wrote some rows twice."""

import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

import wheeltap as wt


def net() -> nn.Module:
    """Untrained: what it answers is right."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4)).eval()


def good() -> nn.Module:
    """The net in its 16-bit file."""
    (loaded := net()).load_state_dict(load_file(folder / "good.safetensors"))
    return loaded


def bad() -> nn.Module:
    """The same, by the other exporter."""
    (loaded := net()).load_state_dict(load_file(folder / "bad.safetensors"))
    return loaded


folder, inputs = Path(tempfile.mkdtemp()), torch.randn(1000, 16, generator=torch.Generator().manual_seed(1))
tensors = {name: tensor.half() for name, tensor in net().state_dict().items()}
save_file(tensors, folder / "good.safetensors")
tensors["2.weight"][:8] = tensors["2.weight"][8:16]
save_file(tensors, folder / "bad.safetensors")

report = wt.audit(net(), (inputs, net()(inputs).argmax(1)), schemes=[good, bad], audits="score,deployment,file")
print(report.headline)
print(*(row.because for row in report["WT003"]), sep="\n")
assert [row.verdict for row in report["WT100"]] == ["safe", "costs"]
