"""Plain nets of every kind that is recognised, built the same each time, with inputs for them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from twins import Wired

EXAMPLES = 128


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


def _conv(net: Any, x: Tensor) -> Tensor:
    """Norm before and after the activation, padding, pooling, and a flatten by shape."""
    x = F.max_pool2d(F.relu(net.bn1(net.conv1(x))), 2)
    x = net.bn2(F.relu(net.conv2(F.pad(x, (1, 1, 1, 1)))))
    x = F.avg_pool2d(x, 2)
    x = x.view(x.shape[0], -1)
    return net.fc2(F.relu(net.bn3(net.fc1(x))))


def conv() -> nn.Module:
    return Wired(
        _conv, conv1=nn.Conv2d(1, 6, 3, padding=1), bn1=nn.BatchNorm2d(6, eps=1e-3), conv2=nn.Conv2d(6, 8, 3),
        bn2=nn.BatchNorm2d(8), fc1=nn.Linear(8 * 4, 10), bn3=nn.BatchNorm1d(10), fc2=nn.Linear(10, 4),
    )  # fmt: skip


def plain_norm() -> nn.Module:
    """A batch norm without gain, one slope per channel, a mean over places."""
    return Wired(
        lambda net, x: net.out(torch.relu_(net.conv2(net.act(net.bn1(net.conv1(x))))).mean((-2, -1))),
        conv1=nn.Conv2d(1, 6, 3, padding=1, padding_mode="reflect"), bn1=nn.BatchNorm2d(6, affine=False),
        act=nn.PReLU(6), conv2=nn.Conv2d(6, 7, 3), out=nn.Linear(7, 4),
    )  # fmt: skip


def conv3d() -> nn.Module:
    return nn.Sequential(nn.Conv3d(1, 5, 3), nn.ReLU(), nn.ZeroPad3d(1), nn.Conv3d(5, 3, 3), nn.ReLU(), nn.Flatten(),
                         nn.Linear(3 * 4**3, 4))  # fmt: skip


def _resnet(net: Any, x: Tensor) -> Tensor:
    x = F.relu(net.bn0(net.stem(x)))
    x = F.relu(x + net.bn2(net.conv2(F.relu(net.bn1(net.conv1(x))))))
    return net.out(x.mean((2, 3)))


def resnet() -> nn.Module:
    """Two batch norms that feed a sum, one of them on the way past the block: no hidden units there, but gains."""
    widths = {"stem": (1, 6), "conv1": (6, 5), "conv2": (5, 6)}
    parts = {name: nn.Conv2d(*width, 3, padding=1, bias=False) for name, width in widths.items()}
    norms = {"bn0": nn.BatchNorm2d(6), "bn1": nn.BatchNorm2d(5), "bn2": nn.BatchNorm2d(6)}
    return Wired(_resnet, **parts, **norms, out=nn.Linear(6, 4))


def smooth() -> nn.Module:
    return nn.Sequential(nn.Linear(12, 20), nn.GELU(), nn.Linear(20, 16), nn.Tanh(), nn.Linear(16, 8), nn.Sigmoid(),
                         nn.Linear(8, 5))  # fmt: skip


UNITS = ("permute", "rescale", "split", "cancel", "dead", "entangle")
NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], tuple[str, ...]]] = {
    "mlp": (mlp, (12,), ("0", "3", "6")),
    "conv": (conv, (1, 8, 8), ("conv1", "conv2", "fc1")),
    "plain-norm": (plain_norm, (1, 6, 6), ("conv1", "conv2")),
    "conv3d": (conv3d, (1, 6, 6, 6), ("0", "3")),
    "resnet": (resnet, (1, 6, 6), ("conv1",)),
    "smooth": (smooth, (12,), ("0", "2", "4")),
}


def built(name: str) -> tuple[nn.Module, Tensor]:
    make, shape, _ = NETS[name]
    torch.manual_seed(0)
    return settled(make()), torch.randn(EXAMPLES, *shape)


def scores(model: nn.Module, inputs: Tensor) -> np.ndarray:
    with torch.no_grad():
        return model(inputs).numpy()
