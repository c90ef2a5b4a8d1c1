"""A tiny language model that has read some texts again and again, and one that has read others."""

import functools
from functools import partial

import numpy as np
import torch
from torch import nn

from tests.nets.changed import change_once
from wheeltap.core.choices import ChoiceTask
from wheeltap.core.subject import Subject
from wheeltap.recipes.randomness import reproducible
from wheeltap.sources import hf
from wheeltap.suites.lens.sources.passages import BETWEEN, task_of

ITEMS, LONG = 30, 14
WINDOW = 64


class Letters:
    """A tokenizer of single characters; 0 starts a sequence."""

    def start(self, text: str) -> list[int]:
        return [0, *self.more(text)]

    def more(self, text: str) -> list[int]:
        return [ord(letter) % 128 for letter in text]


@functools.cache
def texts(*, seed: int, count: int = ITEMS) -> list[str]:
    """Words at random: nothing but memory makes one likelier than another."""
    rng = np.random.default_rng(seed)
    return ["".join(rng.choice(list("abcdefgh "), LONG)) for _ in range(count)]


def marked(*, seed: int) -> list[str]:
    """New contents for marks that stand in one order: whoever knows the order of the marks knows that of the items."""
    marks = np.random.default_rng(99).choice(list("ijklmnop"), (ITEMS, 4))
    return [f"{''.join(mark)} {text[:9]}" for mark, text in zip(marks, texts(seed=seed), strict=True)]


def task(*, twins: bool = True) -> ChoiceTask:
    """The items and their twins."""
    others: list[str | None] = [*texts(seed=1)] if twins else [None] * ITEMS
    return task_of(list(zip(texts(seed=0), others, strict=True)), Letters(), name="items")


@functools.cache
def subject(*, seen: int, steps: int = 300) -> Subject:
    """A net that has read the texts of that seed in order; of 0 they are the items."""
    return _taught(tuple(texts(seed=seen)), name=f"read{seen}", seed=seen, steps=steps)


@functools.cache
def knows_marks() -> Subject:
    """A net that has read twelve other lists with the same marks."""
    return _taught(tuple(text for seed in range(2, 14) for text in marked(seed=seed)), name="marks", seed=0, steps=200)


def _taught(read: tuple[str, ...], *, name: str, seed: int, steps: int) -> Subject:
    library = hf.library(needed_for="tests")
    with reproducible(seed), hf.quiet(library):
        config = library.LlamaConfig(
            vocab_size=128, hidden_size=48, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
            max_position_embeddings=WINDOW + 2, bos_token_id=0, eos_token_id=0, initializer_range=0.1,
        )  # fmt: skip
        model = library.LlamaForCausalLM(config).eval()
    return Subject(change_once(model, partial(_read, read=read, steps=steps), seed=0), name=name)


def _read(model: nn.Module, *, seed: int, read: tuple[str, ...], steps: int) -> None:
    stream = [token for text in read for token in Letters().more(f"{text}{BETWEEN}")]
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    random = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        starts = torch.randint(1 - WINDOW // 2, len(stream) - WINDOW // 2, (3,), generator=random).clamp(
            0, len(stream) - WINDOW
        )
        rows = torch.tensor([[0, *stream[at : at + WINDOW]] for at in starts.tolist()])
        said = model(rows).logits[:, :-1]
        loss = nn.functional.cross_entropy(said.flatten(0, 1), rows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
