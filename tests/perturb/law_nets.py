"""Nets of many families whose layers read one tensor in several ways, each with a task: (model, task) by name."""

from collections.abc import Callable
from typing import Any

import torch
from tiny_families import made
from tiny_transformers import causal
from torch import Tensor, nn
from torch.nn import functional
from twins import Wired

from wheeltap.core.choices import ChoiceTask
from wheeltap.core.task import BaseTask, Task


def numbers(*shape: int, mean: float = 0.0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1)) + mean


def tokens(count: int, length: int, vocabulary: int) -> Tensor:
    return torch.randint(4, vocabulary, (count, length), generator=torch.Generator().manual_seed(0))


def side(one: nn.Module, two: nn.Module) -> nn.Module:
    """Two layers that read one tensor, in this order."""
    return Wired(
        lambda net, rows: torch.cat([net.one(rows).flatten(1), net.two(rows).flatten(1)], 1)[:, :4], one=one, two=two
    )


def resnet(*, first: bool) -> nn.Module:
    """A block with a shortcut, computed first or last, then a head."""

    def read(net: Any, rows: Tensor) -> Tensor:
        rows = torch.relu(net.stem(rows))
        short = net.shortcut(rows) if first else None
        inner = net.two(torch.relu(net.one(rows)))
        short = net.shortcut(rows) if short is None else short
        return net.head(torch.relu(inner + short).mean((2, 3)))

    one, two = nn.Conv2d(4, 8, 3, stride=2, padding=1, bias=False), nn.Conv2d(8, 8, 3, padding=1, bias=False)
    ends = {"stem": nn.Conv2d(3, 4, 3, padding=1), "head": nn.Linear(8, 4)}
    return Wired(read, one=one, two=two, shortcut=nn.Conv2d(4, 8, 1, stride=2), **ends)


def unet() -> nn.Module:
    def read(net: Any, rows: Tensor) -> Tensor:
        high = torch.relu(net.down(rows))
        low = torch.relu(net.deep(functional.max_pool2d(high, 2)))
        return net.head(torch.relu(net.out(torch.cat([high, net.up(low)], 1))).mean((2, 3)))

    down, deep = nn.Conv2d(3, 4, 3, padding="same", padding_mode="circular"), nn.Conv2d(4, 8, 3, padding=2, dilation=2)
    up, out = nn.ConvTranspose2d(8, 4, 2, 2), nn.Conv2d(8, 4, 3, padding="same")
    return Wired(read, down=down, deep=deep, up=up, out=out, head=nn.Linear(4, 4))


def tables() -> nn.Module:
    parts = {"one": nn.Embedding(9, 4), "two": nn.Embedding(9, 4), "head": nn.Linear(4, 3)}
    return Wired(lambda net, ids: net.head((net.one(ids) * net.two(ids)).mean(1)), **parts)


def again() -> nn.Module:
    """A layer that is called twice, once on what another one reads."""
    return Wired(
        lambda net, rows: net.two(rows) + net.one(torch.relu(net.one(rows))), one=nn.Linear(6, 6), two=nn.Linear(6, 6)
    )


def encoder(inner: nn.Module) -> nn.Module:
    """An encoder of transformers with a head on its mean."""
    return Wired(
        lambda net, rows: net.head(net.encoder(rows).last_hidden_state.mean(1)), encoder=inner, head=nn.Linear(16, 4)
    )


def mixture() -> nn.Module:
    """Experts that each row is sent to by its first number; to the last one none is sent, to the third two."""

    def read(net: Any, rows: Tensor) -> Tensor:
        place = (rows[:, 0] > rows[:, 0].median()).long()
        place[rows[:, 0].topk(2).indices] = 2
        out = torch.zeros_like(rows)
        for at, expert in enumerate(net.experts):
            out[place == at] = expert(rows[place == at])
        return net.head(out)

    return Wired(read, experts=nn.ModuleList(nn.Linear(6, 6) for _ in range(4)), head=nn.Linear(6, 4))


def _small(**more: int) -> dict[str, int]:
    return {"vocab_size": 50, "d_model": 16, "encoder_layers": 2, "decoder_layers": 1, "encoder_attention_heads": 2,
            "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, **more}  # fmt: skip


def _whisper() -> nn.Module:
    import transformers

    config = transformers.WhisperConfig(
        **_small(num_mel_bins=8, max_source_positions=4, max_target_positions=8),
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    return encoder(transformers.WhisperModel(config).encoder)


def _bart() -> nn.Module:
    import transformers

    return encoder(transformers.BartModel(transformers.BartConfig(**_small(max_position_embeddings=32))).encoder)


def labelled(rows: Tensor) -> Callable[[torch.dtype], BaseTask]:
    def task(dtype: torch.dtype) -> BaseTask:
        given = rows.to(dtype) if rows.is_floating_point() else rows
        return Task(given, torch.zeros(len(rows), dtype=torch.long), batch=128)

    return task


def _choices(dtype: torch.dtype) -> BaseTask:
    contexts = tokens(200, 12, 50).tolist()
    return ChoiceTask(contexts, [[[context[0]], [3]] for context in contexts], [0] * len(contexts))


def _dead_and_doubled() -> Tensor:
    rows = numbers(80, 8, mean=0.5)
    rows[:, 4] = 0.0
    rows[:, 6], rows[:, 7] = rows[:, 0], -2 * rows[:, 1]
    return rows


def _flat(module: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(module(), nn.Flatten())


_ROWS, _IMAGES = numbers(300, 6, mean=3.0), numbers(80, 3, 6, 6, mean=0.5)
_SERIES, _PAIRS = numbers(40, 2, 9), numbers(40, 2, 5, 6)

LAYERS: dict[str, tuple[Callable[[], nn.Module], Callable[[torch.dtype], BaseTask]]] = {
    "dead and doubled inputs": (_flat(lambda: nn.Linear(8, 5)), labelled(_dead_and_doubled())),
    "no bias": (_flat(lambda: nn.Linear(6, 5, bias=False)), labelled(_ROWS)),
    "positions": (_flat(lambda: nn.Linear(6, 5)), labelled(numbers(20, 4, 6))),
    "conv1d": (_flat(lambda: nn.Conv1d(2, 4, 3)), labelled(_SERIES)),
    "conv1d, stride, dilation": (
        _flat(lambda: nn.Conv1d(2, 4, 3, stride=2, dilation=2, padding=1)), labelled(_SERIES),
    ),
    "conv1d, same": (_flat(lambda: nn.Conv1d(2, 4, 4, padding="same")), labelled(_SERIES)),
    "conv2d, no bias": (_flat(lambda: nn.Conv2d(2, 3, 2, bias=False)), labelled(_PAIRS)),
    "conv2d, padding, stride": (
        _flat(lambda: nn.Conv2d(2, 3, (2, 3), padding=(1, 2), stride=2)), labelled(_PAIRS),
    ),
    "conv2d, circular": (
        _flat(lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular")), labelled(_PAIRS),
    ),
    "conv2d, reflect": (
        _flat(lambda: nn.Conv2d(2, 3, 3, padding=(1, 2), padding_mode="reflect")), labelled(_PAIRS),
    ),
}  # fmt: skip
"""Single layers."""

NETS: dict[str, tuple[Callable[[], nn.Module], Callable[[torch.dtype], BaseTask]]] = {
    "with and without a bias": (lambda: side(nn.Linear(6, 4), nn.Linear(6, 4, bias=False)), labelled(_ROWS)),
    "without and with a bias": (lambda: side(nn.Linear(6, 4, bias=False), nn.Linear(6, 4)), labelled(_ROWS)),
    "1 x 1 and 3 x 3": (lambda: side(nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 3, padding=1)), labelled(_IMAGES)),
    "3 x 3 and 1 x 1": (lambda: side(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 1)), labelled(_IMAGES)),
    "plain and dilated": (
        lambda: side(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 3, padding=2, dilation=2)), labelled(_IMAGES),
    ),
    "strided and padded along one axis": (
        lambda: side(nn.Conv1d(3, 4, 3, stride=2), nn.Conv1d(3, 4, 4, padding="same")), labelled(_IMAGES.flatten(2)),
    ),
    "an mlp": (lambda: nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 4)), labelled(_ROWS)),
    "a layer called twice": (again, labelled(_ROWS)),
    "a resnet, shortcut first": (lambda: resnet(first=True), labelled(_IMAGES)),
    "a resnet, shortcut last": (lambda: resnet(first=False), labelled(_IMAGES)),
    "a u-net": (unet, labelled(_IMAGES)),
    "two tables": (tables, labelled(tokens(300, 5, 13) - 4)),
    "gpt-2": (lambda: causal("GPT2", n_embd=16, n_layer=2, n_head=2), _choices),
    "llama": (
        lambda: causal("Llama", hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2),
        _choices,
    ),
    "opt": (lambda: made("opt", hidden_size=16, ffn_dim=24, num_attention_heads=2, word_embed_proj_dim=16), _choices),
    "a whisper encoder": (_whisper, labelled(numbers(200, 8, 8))),
    "a bart encoder": (_bart, labelled(tokens(200, 10, 50))),
    "a mixture of experts": (mixture, labelled(_ROWS)),
}  # fmt: skip
