"""Recurrent nets whose layers are read in many ways."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from twins import Wired, on

WIDTH = 10
PROBED = on(torch.randn(16, 7, 5, generator=torch.Generator().manual_seed(0)))
FRESH = on(torch.randn(40, 9, 5, generator=torch.Generator().manual_seed(1)))


def body(kind: str, **settings: Any) -> Any:
    return getattr(nn, kind)(5, WIDTH, batch_first=True, **settings)


def last(net: Any, x: Tensor) -> Tensor:
    return net.head(net.body(x)[0][:, -1].relu())


def states(net: Any, x: Tensor) -> Tensor:
    """Reads the last states, both directions in reverse, and the mean of all places with something else between."""
    given, (states, _) = net.body(x)
    return net.head(torch.cat([states[-1], x[:, 0, :3], states[-2], given.mean(1)], dim=1))


def attending(net: Any, x: Tensor) -> Tensor:
    """Weights places by what they hold: two layers read it, one through the other."""
    given = net.body(x)[0]
    weights = net.weigh(net.ask(given).tanh()).softmax(1)
    return net.head((weights * given).sum(1)) + net.end(net.mix(given.mT).amax(2))


def answering(net: Any, x: Tensor) -> Tensor:
    """What one layer read is what another one starts from."""
    return net.head(net.answer(x[:, :3, :4], net.body(x)[1])[0][:, -1])


def stepping(net: Any, x: Tensor) -> Tensor:
    """A cell in a loop, which starts from nothing."""
    state: Any = None
    for at in range(x.shape[1]):
        state = net.body(x[:, at], state)
    return net.head(state[0] if isinstance(state, tuple) else state)


def mixed(net: Any, x: Tensor) -> Tensor:
    """Another layer starts from what is mixed before."""
    _, (state, cell) = net.body(x)
    return net.head(net.answer(x[:, :3, :4], (state.tanh() + state.flip(-1), cell))[0][:, -1])


def wired(body: Any, read: Callable[[Any, Tensor], Tensor] = last, *, width: int = 0, **parts: Any) -> nn.Module:
    """A recurrent layer and a head that reads so many numbers."""
    return Wired(read, body=body, head=nn.Linear(width or WIDTH, 6), **parts)


NETS: dict[str, Callable[[], nn.Module]] = {
    "lstm": lambda: wired(body("LSTM")),
    "gru": lambda: wired(body("GRU", num_layers=2)),
    "relu": lambda: wired(body("RNN", nonlinearity="relu", num_layers=2)),
    "both ways": lambda: wired(body("LSTM", num_layers=2, bidirectional=True), width=2 * WIDTH),
    "states": lambda: wired(body("LSTM", num_layers=2, bidirectional=True), states, width=4 * WIDTH + 3),
    "attending": lambda: wired(
        body("GRU"), attending, ask=nn.Linear(WIDTH, 4), mix=nn.Conv1d(WIDTH, 8, 3), weigh=nn.Linear(4, 1),
        end=nn.Linear(8, 6),
    ),
    # One layer into another, of another kind.
    "stacked": lambda: wired(
        body("LSTM", num_layers=2), lambda net, x: net.head(net.second(net.body(x)[0])[0][:, -1]), width=14,
        second=nn.GRU(WIDTH, 7, batch_first=True, bidirectional=True),
    ),
    "answering": lambda: wired(
        body("LSTM", num_layers=2), answering, answer=nn.LSTM(4, WIDTH, 2, batch_first=True)
    ),
    "cell": lambda: wired(nn.LSTMCell(5, WIDTH), stepping),
}  # fmt: skip


def _weight_normed() -> nn.Module:
    model = wired(body("GRU"))
    nn.utils.parametrizations.weight_norm(model.get_submodule("body"), "weight_hh_l0")
    return model


REFUSED: dict[str, Callable[[], nn.Module]] = {
    "head reads its units in a way that is not followed": lambda: wired(  # it starts from a state that is a parameter
        body("GRU"), lambda net, x: net.head(net.body(x, net.start.expand(-1, len(x), -1).contiguous())[0][:, -1]),
        start=nn.Parameter(torch.randn(1, 1, WIDTH)),
    ),
    "answer starts from its units in a way that is not followed": lambda: wired(
        body("LSTM"), mixed, answer=nn.LSTM(4, WIDTH, batch_first=True)
    ),
    "what its units write is projected before it is read": lambda: wired(body("LSTM", proj_size=4), width=4),
    "it is a ParametrizedGRU, not a recurrent layer of torch itself": _weight_normed,
}  # fmt: skip


def net(name: str) -> Any:
    torch.manual_seed(0)
    model = NETS[name]()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    return model.eval()
