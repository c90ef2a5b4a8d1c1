"""Recurrent nets whose layers are read in many ways."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

WIDTH = 10
PROBED = torch.randn(16, 7, 5, generator=torch.Generator().manual_seed(0))
FRESH = torch.randn(40, 9, 5, generator=torch.Generator().manual_seed(1))


def on(inputs: Tensor) -> Callable[[Any], Tensor]:
    def run(model: Any) -> Tensor:
        with torch.no_grad():
            return model(inputs.to(next(model.parameters()).dtype))

    return run


class Last(nn.Module):
    """Reads the last place of a recurrent layer."""

    def __init__(self, body: nn.RNNBase) -> None:
        super().__init__()
        self.body, self.head = body, nn.Linear((1 + body.bidirectional) * body.hidden_size, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x)[0][:, -1].relu())


class States(Last):
    """Reads the last states, both directions in reverse, and the mean of all places with something else between."""

    def __init__(self, body: nn.RNNBase) -> None:
        super().__init__(body)
        self.head = nn.Linear(4 * body.hidden_size + 3, 6)

    def forward(self, x: Tensor) -> Tensor:
        given, (states, _) = self.body(x)
        return self.head(torch.cat([states[-1], x[:, 0, :3], states[-2], given.mean(1)], dim=1))


class Attending(Last):
    """Weights places by what they hold: two layers read it, one through the other."""

    def __init__(self, body: nn.RNNBase) -> None:
        super().__init__(body)
        self.ask, self.mix = nn.Linear(body.hidden_size, 4), nn.Conv1d(body.hidden_size, 8, 3)
        self.weigh, self.end = nn.Linear(4, 1), nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        given = self.body(x)[0]
        weights = self.weigh(self.ask(given).tanh()).softmax(1)
        return self.head((weights * given).sum(1)) + self.end(self.mix(given.mT).amax(2))


class Stacked(Last):
    """One layer into another, of another kind."""

    def __init__(self, body: nn.RNNBase) -> None:
        super().__init__(body)
        self.second = nn.GRU(body.hidden_size, 7, batch_first=True, bidirectional=True)
        self.head = nn.Linear(14, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(self.body(x)[0])[0][:, -1])


class Answering(Last):
    """What one layer read is what another one starts from."""

    def __init__(self, body: nn.RNNBase) -> None:
        super().__init__(body)
        self.answer = nn.LSTM(4, body.hidden_size, body.num_layers, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        _, state = self.body(x)
        return self.head(self.answer(x[:, :3, :4], state)[0][:, -1])


class Cell(nn.Module):
    """A cell in a loop, which starts from nothing."""

    def __init__(self, cell: nn.RNNCellBase) -> None:
        super().__init__()
        self.cell, self.head = cell, nn.Linear(WIDTH, 6)

    def forward(self, x: Tensor) -> Tensor:
        state: Any = None
        for at in range(x.shape[1]):
            state = self.cell(x[:, at], state)
        return self.head(state[0] if isinstance(state, tuple) else state)


def body(kind: str, **settings: Any) -> Any:
    return getattr(nn, kind)(5, WIDTH, batch_first=True, **settings)


NETS: dict[str, Callable[[], nn.Module]] = {
    "lstm": lambda: Last(body("LSTM")),
    "gru": lambda: Last(body("GRU", num_layers=2)),
    "tanh": lambda: Last(body("RNN", bias=False)),
    "relu": lambda: Last(body("RNN", nonlinearity="relu", num_layers=2)),
    "both ways": lambda: Last(body("LSTM", num_layers=2, bidirectional=True)),
    "states": lambda: States(body("LSTM", num_layers=2, bidirectional=True)),
    "attending": lambda: Attending(body("GRU")),
    "stacked": lambda: Stacked(body("LSTM", num_layers=2)),
    "answering": lambda: Answering(body("LSTM", num_layers=2)),
    "cell": lambda: Cell(nn.LSTMCell(5, WIDTH)),
    "gru cell": lambda: Cell(nn.GRUCell(5, WIDTH)),
}


def net(name: str) -> Any:
    torch.manual_seed(0)
    model = NETS[name]()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    return model.eval()


class Starting(Last):
    """Starts from a state that is a parameter."""

    def __init__(self, body: nn.RNNBase) -> None:
        super().__init__(body)
        self.start = nn.Parameter(torch.randn(1, 1, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x, self.start.expand(-1, len(x), -1).contiguous())[0][:, -1])


class Normed(Last):
    """A norm of all units before they are read."""

    def __init__(self, body: nn.RNNBase) -> None:
        super().__init__(body)
        self.norm = nn.LayerNorm(WIDTH)
        nn.init.normal_(self.norm.weight)
        nn.init.normal_(self.norm.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.body(x)[0][:, -1]))


class Mixed(Answering):
    """Starts from what is mixed before."""

    def forward(self, x: Tensor) -> Tensor:
        _, (state, cell) = self.body(x)
        return self.head(self.answer(x[:, :3, :4], (state.tanh() + state.flip(-1), cell))[0][:, -1])


class Zeros(Last):
    """Starts from zeros of a width that is written in the code."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x, x.new_zeros(1, len(x), WIDTH))[0][:, -1])


class Bare(Last):
    """Its outputs are the units themselves."""

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)[0][:, -1]


class Unheard(Last):
    """Nothing of it gets to the outputs."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x)[0][:, -1] * 0) + x.mean(1)[:, :1]


class Projected(Last):
    """Reads what the units of the layer are projected to."""

    def __init__(self, body: nn.RNNBase) -> None:
        super().__init__(body)
        self.head = nn.Linear(body.proj_size, 6)
