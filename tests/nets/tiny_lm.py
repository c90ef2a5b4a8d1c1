"""Tiny language models with a known task, trained in seconds: stand-ins for real ones of the same architecture."""

from collections.abc import Callable
from functools import partial
from typing import Any, Final, cast

import torch
from torch import Tensor, nn

from tests.nets.changed import change_once
from wheeltap.core.choices import ChoiceTask
from wheeltap.core.errors import UnknownName
from wheeltap.core.subject import Subject
from wheeltap.recipes.randomness import reproducible
from wheeltap.sources import hf
from wheeltap.testing.planted import PlantedCase

KINDS: Final = ("gpt2", "llama")
"""Architectures: LayerNorm, biases and GELU; RMSNorm, rotary positions, SwiGLU and grouped queries."""

_LETTERS = 8
_MARK, _ASK, _FILL = 1, 2, 3
_FIRST = 4
_LENGTH = 10
_VOCABULARY = 32


def sequences(count: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """Token sequences ``[example, 12]`` and the letter ``[example]`` asked for.

    Each is a start token, ten places of filler and letters with one mark among them, and a question mark; asked for is
    the letter after the mark. So a model must find a place by what stands there and copy what follows: attention in
    two steps.
    """
    random = torch.Generator().manual_seed(seed)
    body = torch.randint(_FIRST, _FIRST + 2 * _LETTERS, (count, _LENGTH), generator=random)
    place = torch.randint(0, _LENGTH - 1, (count,), generator=random)
    answer = torch.randint(0, _LETTERS, (count,), generator=random)
    rows = torch.arange(count)
    body[rows, place] = _MARK
    body[rows, place + 1] = _FIRST + answer
    ends = (torch.zeros(count, 1, dtype=torch.long), torch.full((count, 1), _ASK))
    return torch.cat([ends[0], body, ends[1]], 1), answer


def _config(kind: str, transformers: Any) -> Any:
    shared: dict[str, Any] = {"vocab_size": _VOCABULARY, "bos_token_id": 0, "eos_token_id": _FILL}
    if kind == "gpt2":
        return transformers.GPT2Config(n_positions=32, n_embd=48, n_layer=2, n_head=4, **shared)
    if kind == "llama":
        return transformers.LlamaConfig(
            hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
            head_dim=12, max_position_embeddings=32, rope_theta=100.0, tie_word_embeddings=True, **shared,
        )  # fmt: skip
    raise UnknownName("kind of tiny language model", kind, KINDS)


def _new(kind: str, transformers: Any) -> nn.Module:
    config = _config(kind, transformers)
    made = transformers.GPT2LMHeadModel if kind == "gpt2" else transformers.LlamaForCausalLM
    return made(config).eval()


def _train(model: nn.Module, *, seed: int, steps: int) -> None:
    def batch(step: int) -> tuple[Tensor, Tensor]:
        tokens, answers = sequences(128, seed=10_000 * (seed + 1) + step)
        return tokens, _FIRST + answers

    descend(model, batch, steps=steps, rate=3e-3, highest=4e-3)


def descend(
    model: nn.Module, batch: Callable[[int], tuple[Tensor, Tensor]], *, steps: int, rate: float, highest: float
) -> None:
    """Trains a language model on the next token after fresh sequences; its mode stays: dropout would only cost time.

    Args:
        model: Of transformers.
        batch: Tokens ``[example, position]`` and next tokens ``[example]`` of a step.
        steps: How many.
        rate: AdamW's, before the schedule.
        highest: The schedule's highest rate.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, highest, total_steps=max(steps, 1))
    for step in range(steps):
        tokens, wanted = batch(step)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(tokens).logits[:, -1], wanted).backward()  # pyright: ignore[reportUnknownMemberType]
        optimizer.step()  # pyright: ignore[reportUnknownMemberType]
        schedule.step()


def tiny_lm(kind: str, *, seed: int = 0, steps: int = 400, examples: int = 600) -> PlantedCase:
    """A two-layer transformer that has learned to find a mark and copy the letter after it.

    Args:
        kind: One of ``KINDS``.
        seed: Of weights and training.
        steps: Of training; 0 leaves the model random.
        examples: How many are scored.

    Raises:
        UnknownName: If there is no such kind.
        MissingExtra: If transformers is not installed.
    """
    transformers = hf.library(needed_for="tiny language models")
    with reproducible(seed), hf.quiet(transformers):
        model = _new(kind, transformers)
    model = change_once(model, partial(_train, steps=steps), seed=seed)
    return PlantedCase(Subject(model, name=kind), _task(examples))


def _lists(tokens: Tensor) -> list[list[int]]:
    return cast("list[list[int]]", tokens.tolist())  # pyright: ignore[reportUnknownMemberType]


def _task(examples: int) -> ChoiceTask:
    tokens, answers = sequences(examples, seed=1)
    more, _ = sequences(200, seed=2)
    letters = [[_FIRST + letter] for letter in range(_LETTERS)]
    return ChoiceTask(
        _lists(tokens), [letters] * len(tokens), cast("list[int]", _lists(answers)), name="letter after the mark",
        tokens_per_batch=4096, more=_lists(more),
    )  # fmt: skip
