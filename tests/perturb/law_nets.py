"""Nets of many families whose layers read one tensor in several ways, each with a task: (model, task) by name."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from wheeltap.core.choices import ChoiceTask
from wheeltap.core.task import BaseTask, Task


def numbers(*shape: int, mean: float = 0.0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1)) + mean


def tokens(count: int, length: int, vocabulary: int) -> Tensor:
    return torch.randint(4, vocabulary, (count, length), generator=torch.Generator().manual_seed(0))


class Side(nn.Module):
    """Two layers that read one tensor, in this order."""

    def __init__(self, one: nn.Module, two: nn.Module) -> None:
        super().__init__()
        self.one, self.two = one, two

    def forward(self, rows: Tensor) -> Tensor:
        return torch.cat([self.one(rows).flatten(1), self.two(rows).flatten(1)], 1)[:, :4]


class ResNet(nn.Module):
    """A block with a shortcut, computed first or last, then a head."""

    def __init__(self, *, first: bool) -> None:
        super().__init__()
        self.first = first
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.one = nn.Conv2d(4, 8, 3, stride=2, padding=1, bias=False)
        self.two = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.shortcut, self.head = nn.Conv2d(4, 8, 1, stride=2), nn.Linear(8, 4)

    def forward(self, rows: Tensor) -> Tensor:
        rows = torch.relu(self.stem(rows))
        short = self.shortcut(rows) if self.first else None
        inner = self.two(torch.relu(self.one(rows)))
        short = self.shortcut(rows) if short is None else short
        return self.head(torch.relu(inner + short).mean((2, 3)))


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 4, 3, padding="same", padding_mode="circular")
        self.deep = nn.Conv2d(4, 8, 3, padding=2, dilation=2)
        self.up = nn.ConvTranspose2d(8, 4, 2, 2)
        self.out, self.head = nn.Conv2d(8, 4, 3, padding="same"), nn.Linear(4, 4)

    def forward(self, rows: Tensor) -> Tensor:
        high = torch.relu(self.down(rows))
        low = torch.relu(self.deep(functional.max_pool2d(high, 2)))
        return self.head(torch.relu(self.out(torch.cat([high, self.up(low)], 1))).mean((2, 3)))


class TwoTables(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = nn.Embedding(9, 4), nn.Embedding(9, 4), nn.Linear(4, 3)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head((self.one(ids) * self.two(ids)).mean(1))


class Again(nn.Module):
    """A layer that is called twice, once on what another one reads."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, rows: Tensor) -> Tensor:
        return self.two(rows) + self.one(torch.relu(self.one(rows)))


class Encoder(nn.Module):
    """An encoder of transformers with a head on its mean."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(16, 4)

    def forward(self, rows: Tensor) -> Tensor:
        return self.head(self.encoder(rows).last_hidden_state.mean(1))


class Mixture(nn.Module):
    """Experts that each row is sent to by its first number; to the last one none is sent, to the third two."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList(nn.Linear(6, 6) for _ in range(4))
        self.head = nn.Linear(6, 4)

    def forward(self, rows: Tensor) -> Tensor:
        place = (rows[:, 0] > rows[:, 0].median()).long()
        place[rows[:, 0].topk(2).indices] = 2
        out = torch.zeros_like(rows)
        for at, expert in enumerate(self.experts):
            out[place == at] = expert(rows[place == at])
        return self.head(out)


def _small(**more: int) -> dict[str, int]:
    return {"vocab_size": 50, "d_model": 16, "encoder_layers": 2, "decoder_layers": 1, "encoder_attention_heads": 2,
            "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, **more}  # fmt: skip


def _whisper() -> nn.Module:
    import transformers

    config = transformers.WhisperConfig(
        **_small(num_mel_bins=8, max_source_positions=4, max_target_positions=8),
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    return Encoder(transformers.WhisperModel(config).encoder)


def _bart() -> nn.Module:
    import transformers

    return Encoder(transformers.BartModel(transformers.BartConfig(**_small(max_position_embeddings=32))).encoder)


def _gpt2() -> nn.Module:
    import transformers

    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=50, n_embd=16, n_layer=2, n_head=2, n_positions=32, bos_token_id=1, eos_token_id=2
        )
    )


def _llama() -> nn.Module:
    import transformers

    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=50, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1,
        )
    )  # fmt: skip


def _opt() -> nn.Module:
    import transformers

    return transformers.OPTForCausalLM(
        transformers.OPTConfig(
            vocab_size=50, hidden_size=16, ffn_dim=24, num_hidden_layers=2, num_attention_heads=2,
            max_position_embeddings=32, word_embed_proj_dim=16,
        )
    )  # fmt: skip


def labelled(rows: Tensor) -> Callable[[torch.dtype], BaseTask]:
    def made(dtype: torch.dtype) -> BaseTask:
        given = rows.to(dtype) if rows.is_floating_point() else rows
        return Task(given, torch.zeros(len(rows), dtype=torch.long), batch=128)

    return made


def _choices(dtype: torch.dtype) -> BaseTask:
    contexts = tokens(200, 12, 50).tolist()
    return ChoiceTask(contexts, [[[context[0]], [3]] for context in contexts], [0] * len(contexts))


_ROWS, _IMAGES = numbers(300, 6, mean=3.0), numbers(80, 3, 6, 6, mean=0.5)

NETS: dict[str, tuple[Callable[[], nn.Module], Callable[[torch.dtype], BaseTask]]] = {
    "with and without a bias": (lambda: Side(nn.Linear(6, 4), nn.Linear(6, 4, bias=False)), labelled(_ROWS)),
    "without and with a bias": (lambda: Side(nn.Linear(6, 4, bias=False), nn.Linear(6, 4)), labelled(_ROWS)),
    "1 x 1 and 3 x 3": (lambda: Side(nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 3, padding=1)), labelled(_IMAGES)),
    "3 x 3 and 1 x 1": (lambda: Side(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 1)), labelled(_IMAGES)),
    "plain and dilated": (
        lambda: Side(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 3, padding=2, dilation=2)), labelled(_IMAGES),
    ),
    "strided and padded along one axis": (
        lambda: Side(nn.Conv1d(3, 4, 3, stride=2), nn.Conv1d(3, 4, 4, padding="same")), labelled(_IMAGES.flatten(2)),
    ),
    "an mlp": (lambda: nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 4)), labelled(_ROWS)),
    "a layer called twice": (Again, labelled(_ROWS)),
    "a resnet, shortcut first": (lambda: ResNet(first=True), labelled(_IMAGES)),
    "a resnet, shortcut last": (lambda: ResNet(first=False), labelled(_IMAGES)),
    "a u-net": (UNet, labelled(_IMAGES)),
    "two tables": (TwoTables, labelled(tokens(300, 5, 13) - 4)),
    "gpt-2": (_gpt2, _choices),
    "llama": (_llama, _choices),
    "opt": (_opt, _choices),
    "a whisper encoder": (_whisper, labelled(numbers(200, 8, 8))),
    "a bart encoder": (_bart, labelled(tokens(200, 10, 50))),
    "a mixture of experts": (Mixture, labelled(_ROWS)),
}  # fmt: skip
