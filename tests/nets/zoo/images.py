"""Convolutional nets and their successors on digits: with skips, concatenation, depthwise filters, mixed patches."""

from typing import Final

import torch
from torch import Tensor, nn

from tests.nets.zoo.member import Digits, Member
from wheeltap.recipes.train import TrainSettings

_IMAGE = (1, 8, 8)


class Block(nn.Module):
    """Two convolutions with BatchNorm, added to what they read."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.one, self.two = (nn.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in range(2))
        self.norm_one, self.norm_two = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """``[example, channel, row, column]``, as it came."""
        inner = self.norm_one(self.one(x)).relu()
        return (x + self.norm_two(self.two(inner))).relu()


def _cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(12, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(96, 10),
    )  # fmt: skip


def _resnet() -> nn.Module:
    body = (nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), Block(16), Block(16))
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 10))


def _separable(reads: int, writes: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(reads, reads, 3, padding=1, groups=reads, bias=False), nn.BatchNorm2d(reads), nn.ReLU(),
        nn.Conv2d(reads, writes, 1, bias=False), nn.BatchNorm2d(writes), nn.ReLU(),
    )  # fmt: skip


def _depthwise() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), _separable(16, 32), nn.MaxPool2d(2), _separable(32, 64),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(256, 10),
    )  # fmt: skip


class UNet(nn.Module):
    """Down, across and up again, where what was kept is put beside what comes up."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv2d(1, 12, 3, padding=1)
        self.down, self.across = nn.Conv2d(12, 24, 3, stride=2, padding=1), nn.Conv2d(24, 24, 3, padding=1)
        self.up = nn.ConvTranspose2d(24, 12, 2, stride=2)
        self.join, self.head = nn.Conv2d(24, 16, 3, padding=1), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[example, 10]``."""
        kept = self.enter(x).relu()
        deep = self.across(self.down(kept).relu()).relu()
        joined = self.join(torch.cat([kept, self.up(deep).relu()], 1)).relu()
        return self.head(nn.functional.adaptive_avg_pool2d(joined, 2).flatten(1))


class Mixing(nn.Module):
    """A block of an MLP-Mixer: patches mix within each channel, then channels within each patch."""

    def __init__(self, patches: int, channels: int) -> None:
        super().__init__()
        self.norm_one, self.norm_two = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.across = nn.Sequential(nn.Linear(patches, 32), nn.GELU(), nn.Linear(32, patches))
        self.within = nn.Sequential(nn.Linear(channels, 64), nn.GELU(), nn.Linear(64, channels))

    def forward(self, x: Tensor) -> Tensor:
        """``[example, patch, channel]``, as it came."""
        x = x + self.across(self.norm_one(x).mT).mT
        return x + self.within(self.norm_two(x))


class Mixer(nn.Module):
    """An MLP-Mixer of two blocks on patches of 2 x 2."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(1, 32, 2, stride=2)
        self.blocks = nn.ModuleList(Mixing(16, 32) for _ in range(2))
        self.norm, self.head = nn.LayerNorm(32), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[example, 10]``."""
        hidden = self.patch(x).flatten(2).mT
        for block in self.blocks:
            hidden = block(hidden)
        return self.head(self.norm(hidden).mean(1))


class NextBlock(nn.Module):
    """A block of a ConvNeXt: a depthwise convolution, a norm, two layers, and a scale for each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.widen, self.narrow = nn.Linear(channels, 3 * channels), nn.Linear(3 * channels, channels)
        self.scale = nn.Parameter(torch.full((channels,), 0.3))

    def forward(self, x: Tensor) -> Tensor:
        """``[example, channel, row, column]``, as it came."""
        inner = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        inner = self.scale * self.narrow(nn.functional.gelu(self.widen(inner)))
        return x + inner.permute(0, 3, 1, 2)


class ConvNeXt(nn.Module):
    """A ConvNeXt of two blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 24, 2, stride=2)
        self.blocks = nn.Sequential(NextBlock(24), NextBlock(24))
        self.norm, self.head = nn.LayerNorm(24), nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[example, 10]``."""
        return self.head(self.norm(self.blocks(self.stem(x)).mean((2, 3))))


_TRAINING = TrainSettings(epochs=10)

MEMBERS: Final = (
    Member("cnn", "CNN, BatchNorm", _cnn, Digits(*_IMAGE), training=_TRAINING),
    Member("resnet", "ResNet", _resnet, Digits(*_IMAGE), training=_TRAINING),
    Member("depthwise", "Depthwise-separable CNN", _depthwise, Digits(*_IMAGE), training=_TRAINING),
    Member("unet", "U-Net", UNet, Digits(*_IMAGE), training=TrainSettings(epochs=20)),
    Member("mixer", "MLP-Mixer", Mixer, Digits(*_IMAGE), training=_TRAINING),
    Member("convnext", "ConvNeXt", ConvNeXt, Digits(*_IMAGE), training=TrainSettings(epochs=16)),
)
