"""Plain nets of every kind that is recognised, built the same each time, with inputs for them."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

EXAMPLES = 512


def settled(model: nn.Module, seed: int = 0) -> nn.Module:
    """``model`` in eval mode, each batch norm with random statistics and gains, some of them negative."""
    draw = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
            n = module.num_features
            module.running_mean.copy_(torch.randn(n, generator=draw))
            # Some variances are of the size of eps, where an eps left out would show.
            module.running_var.copy_(torch.rand(n, generator=draw).square() * 2 + 1e-5)
            if module.affine:
                module.weight.data.copy_(torch.randn(n, generator=draw))
                module.bias.data.copy_(torch.randn(n, generator=draw))
    return model.eval()


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(12, 20), nn.ReLU(), nn.Dropout(0.5), nn.Linear(20, 16), nn.LeakyReLU(0.1), nn.Identity(),
        nn.Linear(16, 8, bias=False), nn.PReLU(8), nn.Linear(8, 5),
    )  # fmt: skip


class HandWritten(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3, self.fc4 = nn.Linear(12, 24), nn.Linear(24, 16), nn.Linear(16, 9), nn.Linear(9, 4)
        self.calls = 0

    def forward(self, x: Tensor, scale: float | None = None) -> Tensor:
        self.calls += 1  # A forward that writes an attribute must not be noticed on the original.
        x = F.dropout(F.relu(self.fc1(x.view(x.size(0), -1))), training=self.training)
        x = torch.relu(self.fc2(x)).contiguous()
        if scale is not None:
            x = x * scale
        return self.fc4(self.fc3(x).clamp(min=0))


class ConvNet(nn.Module):
    """Norm before and after the activation, padding, pooling, and a flatten by shape."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6, eps=1e-3)
        self.conv2, self.bn2 = nn.Conv2d(6, 8, 3), nn.BatchNorm2d(8)
        self.fc1, self.bn3, self.fc2 = nn.Linear(8 * 4, 10), nn.BatchNorm1d(10), nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 2)
        x = self.bn2(F.relu(self.conv2(F.pad(x, (1, 1, 1, 1)))))
        x = F.avg_pool2d(x, 2)
        x = x.view(x.shape[0], -1)
        return self.fc2(F.relu(self.bn3(self.fc1(x))))


class PlainNorm(nn.Module):
    """A batch norm without gain, one slope per channel, a mean over places."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 6, 3, padding=1, padding_mode="reflect"), nn.BatchNorm2d(6, affine=False)
        self.act, self.conv2, self.out = nn.PReLU(6), nn.Conv2d(6, 7, 3), nn.Linear(7, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.relu_(self.conv2(self.act(self.bn1(self.conv1(x))))).mean((-2, -1)))


def conv1d() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(2, 6, 3), nn.BatchNorm1d(6), nn.ReLU(), nn.MaxPool1d(2), nn.Conv1d(6, 5, 3), nn.ReLU(),
        nn.AdaptiveAvgPool1d(3), nn.Flatten(), nn.Linear(15, 4),
    )  # fmt: skip


def conv3d() -> nn.Module:
    return nn.Sequential(nn.Conv3d(1, 5, 3), nn.ReLU(), nn.ZeroPad3d(1), nn.Conv3d(5, 3, 3), nn.ReLU(), nn.Flatten(),
                         nn.Linear(3 * 4**3, 4))  # fmt: skip


def places() -> nn.Module:
    """Units vary fastest in the flattened features."""
    return nn.Sequential(nn.Linear(6, 7), nn.ReLU(), nn.Flatten(), nn.Linear(21, 4))


class Block(nn.Module):
    """A residual block: the inner pair can be re-coded, what feeds the sum cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner, self.back, self.head = (
            nn.Linear(12, 8),
            nn.Linear(8, 16),
            nn.Linear(16, 8),
            nn.Linear(8, 4),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        return self.head(F.relu(x + self.back(F.relu(self.inner(x)))))


class ResNet(nn.Module):
    """Two batch norms that feed a sum, one of them on the way past the block: no hidden units there, but gains."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn0 = nn.Conv2d(1, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.conv1, self.bn1 = nn.Conv2d(6, 5, 3, padding=1, bias=False), nn.BatchNorm2d(5)
        self.conv2, self.bn2 = nn.Conv2d(5, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.out = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn0(self.stem(x)))
        x = F.relu(x + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        return self.out(x.mean((2, 3)))


def smooth() -> nn.Module:
    return nn.Sequential(nn.Linear(12, 20), nn.GELU(), nn.Linear(20, 16), nn.Tanh(), nn.Linear(16, 8), nn.Sigmoid(),
                         nn.Linear(8, 5))  # fmt: skip


class SmoothCalls(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(12, 20), nn.Linear(20, 16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(F.silu(self.b(F.gelu(self.a(x), approximate="tanh").tanh())))


UNITS = ("permute", "rescale", "split", "cancel", "dead", "entangle")
NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], tuple[str, ...]]] = {
    "mlp": (mlp, (12,), ("0", "3", "6")),
    "hand-written": (HandWritten, (12,), ("fc1", "fc2", "fc3")),
    "conv": (ConvNet, (1, 8, 8), ("conv1", "conv2", "fc1")),
    "plain-norm": (PlainNorm, (1, 6, 6), ("conv1", "conv2")),
    "conv1d": (conv1d, (2, 16), ("0", "4")),
    "conv3d": (conv3d, (1, 6, 6, 6), ("0", "3")),
    "places": (places, (3, 6), ("0",)),
    "block": (Block, (12,), ("inner",)),
    "resnet": (ResNet, (1, 6, 6), ("conv1",)),
    "smooth": (smooth, (12,), ("0", "2", "4")),
    "smooth-calls": (SmoothCalls, (12,), ("a", "b")),
}


def built(name: str) -> tuple[nn.Module, Tensor]:
    make, shape, _ = NETS[name]
    torch.manual_seed(0)
    return settled(make()), torch.randn(EXAMPLES, *shape)


def scores(model: nn.Module, inputs: Tensor) -> np.ndarray:
    with torch.no_grad():
        return model(inputs).numpy()
