"""Pairs of models with equal weights and other answers: what differs is no weight, and often no plain number."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from wheeltap.core.fingerprint import identify


def fingerprint(model: nn.Module) -> str:
    """Of a model as it is now."""
    return identify(model).digest()


class Base(nn.Module):
    """Two layers; subclasses say how the scores come out."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 32), nn.Linear(32, 2)

    def scores(self, inputs: Tensor) -> Tensor:
        return self.b(torch.relu(self.a(inputs)))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.scores(inputs)


class Slotted:
    __slots__ = ("sign",)

    def __init__(self, sign: float) -> None:
        self.sign = sign

    def signed(self, scores: Tensor) -> Tensor:
        return scores * self.sign


class Reading(Base):
    """Multiplies by what ``how`` finds in something that the model holds."""

    def __init__(self, held: Any, how: Callable[[Any], float]) -> None:
        super().__init__()
        self.held, self.how = held, how

    def forward(self, inputs: Tensor) -> Tensor:
        return self.scores(inputs) * self.how(self.held)


class Calling(Base):
    """Hands its scores to a function that it holds."""

    def __init__(self, last: Any) -> None:
        super().__init__()
        self.last = last

    def forward(self, inputs: Tensor) -> Tensor:
        return self.last(self.scores(inputs))


class Listed(Base):
    """Holds modules in a list, where torch does not see them."""

    def __init__(self, sign: float) -> None:
        super().__init__()
        last = nn.Linear(2, 2, bias=False)
        last.weight.data = sign * torch.eye(2)
        self.more = [last]

    def forward(self, inputs: Tensor) -> Tensor:
        return self.more[0](self.scores(inputs))


def _closure(sign: float) -> Callable[[Tensor], Tensor]:
    return lambda scores: scores * sign


def _default(sign: float) -> Callable[[Tensor], Tensor]:
    def last(scores: Tensor, by: float = sign) -> Tensor:
        return scores * by

    return last


def _hooked(sign: float) -> nn.Module:
    model = Base()
    model.register_forward_hook(lambda module, args, output: output * sign)
    return model


def _instance_forward(sign: float) -> nn.Module:
    model = Base()
    model.forward = lambda inputs: model.scores(inputs) * sign  # type: ignore[method-assign]
    return model


def _member(sign: float) -> nn.Module:
    """A class that holds the sign itself."""

    class Held(Base):
        by = sign

        def forward(self, inputs: Tensor) -> Tensor:
            return self.scores(inputs) * self.by

    return Held()


_HELPED = """
SIGN = {sign}
def helper(scores):
    return scores * {inside}
class Net(Base):
    def forward(self, inputs):
        return helper(self.scores(inputs))
"""


def _from_source(*, sign: float, inside: str) -> nn.Module:
    """A model from a space of names of its own, as a notebook's cells or exec make it."""
    space: dict[str, Any] = {"__name__": "cell"}
    space["Base"] = Base
    exec(compile(_HELPED.format(sign=sign, inside=inside), "<cell>", "exec"), space)
    return space["Net"]()


class Wrapped(nn.Module):
    """A Hugging Face model inside another module: its config is not the root's."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        import transformers

        config = transformers.BertConfig(
            vocab_size=8, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
            max_position_embeddings=8, layer_norm_eps=1e-12, num_labels=2,
        )  # fmt: skip
        self.inner = transformers.BertForSequenceClassification(config)
        self.inner.config.my_scale = scale

    def forward(self, inputs: Tensor) -> Tensor:
        ids = (inputs > 0).long() + 2
        return self.inner(ids).logits * self.inner.config.my_scale


PAIRS: dict[str, Callable[[float], nn.Module]] = {
    "a dict": lambda s: Reading({"sign": s}, lambda held: held["sign"]),
    "a numpy array": lambda s: Reading(np.array([s]), lambda held: float(held[0])),
    "a tensor in a dict": lambda s: Reading({"sign": torch.tensor(s)}, lambda held: held["sign"]),
    "a closure": lambda s: Calling(_closure(s)),
    "a default": lambda s: Calling(_default(s)),
    "a bound method": lambda s: Calling(Slotted(s).signed),
    "a lambda's constant": lambda s: Calling((lambda x: x * 1.0) if s > 0 else (lambda x: x * -1.0)),
    "a forward hook": _hooked,
    "forward of the instance": _instance_forward,
    "an attribute of the class": _member,
    "a module in a list": Listed,
    "the code of a helper": lambda s: _from_source(sign=1.0, inside="1.0" if s > 0 else "-1.0"),
    "a global": lambda s: _from_source(sign=s, inside="SIGN"),
    "the config of a wrapped model": Wrapped,
}
"""By what differs: from 1.0 or -1.0 to a model whose scores have that sign."""


def made(kind: str, sign: float) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return PAIRS[kind](sign).eval()
