"""Small trained nets of the families that people ship: convolutions, recurrent nets, transformers, experts."""

from collections.abc import Callable
from typing import Any, Final

from torch import Tensor, nn

from tests.nets.tiny_lm import sequences
from tests.nets.zoo.images import Block
from wheeltap.core.errors import UnknownName
from wheeltap.core.task import Task
from wheeltap.recipes.randomness import reproducible
from wheeltap.recipes.train import TrainSettings, train_once
from wheeltap.sources import digits, hf

RECURRENT: Final = ("lstm", "gru")
LANGUAGE: Final = ("gpt2", "llama", "qwen2", "gemma2", "mixtral")

_FIRST = 4
"""Token of the first letter (see ``tiny_lm``)."""


class Rows(nn.Module):
    """A recurrent net that reads an image row by row."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.body = {"lstm": nn.LSTM, "gru": nn.GRU}[kind](8, 48, batch_first=True)
        self.head = nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[example, 10]`` of ``[example, 64]``."""
        return self.head(self.body(x.reshape(-1, 8, 8))[0][:, -1])


class Answers(nn.Module):
    """A causal language model that is asked for one of eight letters at the end."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits ``[example, 8]`` of tokens ``[example, 12]``."""
        return self.body(input_ids=tokens).logits[:, -1, _FIRST : _FIRST + 8]


def resnet(*, seed: int = 0, epochs: int = 12) -> nn.Module:
    """A residual net of 9,700 weights on digits."""
    with reproducible(seed):
        body = (nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), Block(16), Block(16))
        net = nn.Sequential(*body, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 10))
    return on_digits(net, seed=seed, epochs=epochs)


def recurrent(kind: str, *, seed: int = 0, epochs: int = 25) -> nn.Module:
    """An LSTM or GRU of which 95 % of the weights are recurrent, on digits."""
    with reproducible(seed):
        net = Rows(kind)
    return on_digits(net, seed=seed, epochs=epochs)


def on_digits(net: nn.Module, *, seed: int = 0, epochs: int = 25) -> nn.Module:
    """The net, trained on the training digits; in eval mode."""
    data = digits.split()
    settings = TrainSettings(seed=seed, epochs=epochs)
    return train_once(net, data.train_inputs, targets=data.train_targets, settings=settings)


def _new(kind: str, seed: int) -> Answers:
    transformers = hf.library(needed_for="tiny language models")
    with reproducible(seed), hf.quiet(transformers):
        return Answers(_MODELS[kind](transformers).eval())


def language(kind: str, *, seed: int = 0, epochs: int = 14) -> nn.Module:
    """A tiny language model that finds the letter after a mark (see ``tiny_lm``), of one of ``LANGUAGE``."""
    if kind not in LANGUAGE:
        raise UnknownName("kind of tiny language model", kind, LANGUAGE)
    tokens, answers = sequences(4_000, seed=seed)
    settings = TrainSettings(seed=seed, epochs=epochs, rate=4e-3, batch=128)
    return train_once(_new(kind, seed), tokens, targets=answers, settings=settings)


def letters(count: int = 600) -> Task:
    """Held-out sequences, scored by accuracy."""
    tokens, answers = sequences(count, seed=99)
    return Task(tokens, answers, name="letters")


def _shared(**more: Any) -> dict[str, Any]:
    return {
        "vocab_size": 32, "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 12, "max_position_embeddings": 32, "bos_token_id": 0, "eos_token_id": 3,
        "pad_token_id": 3, **more,
    }  # fmt: skip


_MODELS: Final[dict[str, Callable[[Any], nn.Module]]] = {
    "gpt2": lambda t: t.GPT2LMHeadModel(
        t.GPT2Config(
            vocab_size=32, n_positions=32, n_embd=48, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=3,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        )
    ),
    "llama": lambda t: t.LlamaForCausalLM(t.LlamaConfig(**_shared())),
    "qwen2": lambda t: t.Qwen2ForCausalLM(t.Qwen2Config(**_shared())),
    "gemma2": lambda t: t.Gemma2ForCausalLM(t.Gemma2Config(**_shared(query_pre_attn_scalar=12, sliding_window=16))),
    "mixtral": lambda t: t.MixtralForCausalLM(
        t.MixtralConfig(**_shared(num_local_experts=4, num_experts_per_tok=2))
    ),
}  # fmt: skip
