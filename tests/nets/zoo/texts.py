"""Models of transformers that are no decoders: encoders of texts and images, encoder with decoder."""

from typing import Any, Final

import torch
from torch import Tensor, nn

from tests.nets.zoo.causal import SMALL
from tests.nets.zoo.member import LETTERS, VOCABULARY, Digits, Member, ReadSums
from wheeltap.recipes.train import TrainSettings
from wheeltap.sources import hf


def _made(kind: str, head: str, **settings: Any) -> nn.Module:
    library = hf.library(needed_for="the zoo")
    with hf.quiet(library):
        return getattr(library, f"{kind}{head}")(getattr(library, f"{kind}Config")(**settings))


class Logits(nn.Module):
    """A model of transformers as one that gives a tensor of logits."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits ``[example, class]``."""
        return self.body(inputs).logits


class Answered(nn.Module):
    """An encoder with a decoder, of which the first token of the answer is read."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits ``[example, LETTERS]``."""
        start = torch.zeros(len(tokens), 1, dtype=torch.long, device=tokens.device)
        return self.body(input_ids=tokens, decoder_input_ids=start).logits[:, 0, 2 : 2 + LETTERS]


_NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def _reader(name: str, title: str, made: Any, training: TrainSettings) -> Member:
    return Member(name, title, made, ReadSums(), training=training, of_transformers=True)


MEMBERS: Final = (
    _reader("bert", "BERT", lambda: Logits(_made(
        "Bert", "ForSequenceClassification", **SMALL, **_NO_DROPOUT, num_labels=LETTERS,
    )), TrainSettings(epochs=8, rate=3e-3)),
    _reader("t5", "T5", lambda: Answered(_made(
        "T5", "ForConditionalGeneration", vocab_size=VOCABULARY, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4,
        dropout_rate=0.0, decoder_start_token_id=0, pad_token_id=0, eos_token_id=1, relative_attention_num_buckets=8,
        relative_attention_max_distance=16,
    )), TrainSettings(epochs=5, rate=4e-3, batch=128)),
    Member(
        "vit", "ViT",
        lambda: Logits(_made(
            "ViT", "ForImageClassification", hidden_size=32, intermediate_size=64, num_hidden_layers=2,
            num_attention_heads=4, image_size=8, patch_size=2, num_channels=1, num_labels=10, **_NO_DROPOUT,
        )),
        Digits(1, 8, 8), training=TrainSettings(epochs=12), of_transformers=True,
    ),
)  # fmt: skip
