"""A small transformer that learns whom something is given to, from sentences that name two people, then one again.

"Then Mary and John went to the store. John gave a drink to" goes on with the name that stands once: " Mary". Three
things are known of each sentence: that name (the indirect object), the name that is repeated (the subject), and
whether the subject comes first or second.

Source: Wang et al. 2022, arXiv:2211.00593 (the task); the sentences are our own.
"""

import re
from collections.abc import Sequence
from typing import Annotated, Any, Final, cast, final

import msgspec
import torch
from torch import Tensor, nn
from torch.nn import functional

from wheeltap.core import seeds
from wheeltap.core.choices import Tokenizer
from wheeltap.core.errors import DataError
from wheeltap.core.settings import Settings
from wheeltap.models.rows import Block
from wheeltap.recipes.base import Given, Recipe, require_fit
from wheeltap.recipes.fit import Fit, TrainSettings
from wheeltap.recipes.randomness import reproducible

NAMES: Final = ("Mary", "John", "Tom", "James", "Anna", "Paul", "Sarah", "David", "Mark", "Kate")
"""Each is one token of most tokenizers, with the space before it."""

TEMPLATES: Final = (
    "Then {A} and {B} went to the store. {S} gave a drink to",
    "When {A} and {B} met at the park, {S} showed a book to",
    "After {A} and {B} left the office, {S} sent a letter to",
    "Yesterday {A} and {B} had lunch, and {S} handed the bill to",
    "While {A} and {B} were at school, {S} passed a note to",
    "Later {A} and {B} came to the station. {S} gave a ticket to",
    "Once {A} and {B} were home again, {S} offered some tea to",
    "Because {A} and {B} were friends, {S} lent the car to",
    "On Monday {A} and {B} worked in the garden, and {S} gave the flowers to",
    "Before {A} and {B} left the house, {S} sold the old piano to",
    "At the party {A} and {B} danced, and then {S} brought a cake to",
    "Last week {A} and {B} saw the doctor. {S} paid the money to",
    "Today {A} and {B} cooked dinner together. {S} served the soup to",
    "In the morning {A} and {B} read the news, and {S} gave the paper to",
    "Since {A} and {B} wanted to travel, {S} bought a map for",
    "During the game {A} and {B} sat together. {S} threw the ball to",
)
"""Sentences up to the answer: A and B are two names, S is one of them again."""

_PLACES: Final = 24
_SPREAD: Final = 0.02


@final
class WordTokenizer(Tokenizer):
    """Words and punctuation marks, in the order of their ids; spaces are left out."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = tuple(words)
        self._ids = {word: at for at, word in enumerate(self.words)}

    def start(self, text: str) -> list[int]:
        """See ``Tokenizer``.

        Raises:
            DataError: If a word is not known.
        """
        found = _words(text)
        if strange := [word for word in found if word not in self._ids]:
            raise DataError("A text has a word that the model does not know.", where=text[:60],
                            expected=f"words such as {', '.join(self.words[:6])}", got=strange[0][:40],
                            do="Use sentences made of the words the model was trained on.")  # fmt: skip
        return [self._ids[word] for word in found]

    def more(self, text: str) -> list[int]:
        """See ``Tokenizer``: as ``start``, for no token marks the start of a text."""
        return self.start(text)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+|[^\w\s]", text)


def tokenizer() -> WordTokenizer:
    """That of the net: of all words of the templates, and the names."""
    words = [word for template in TEMPLATES for word in _words(template.format(A="", B="", S=""))]
    return WordTokenizer([*NAMES, *dict.fromkeys(words)])


@final
class WordTransformer(nn.Module):
    """A causal language model of so many whole words, with a stream of this width."""

    def __init__(self, words: int, *, width: int, blocks: int) -> None:
        super().__init__()
        self.embed, self.position = nn.Embedding(words, width), nn.Embedding(_PLACES, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(blocks))
        self.norm, self.unembed = nn.LayerNorm(width), nn.Linear(width, words, bias=False)
        for table in (self.embed, self.position):
            nn.init.normal_(table.weight, std=_SPREAD)

    def forward(self, tokens: Tensor) -> Any:
        """Scores of each next word, ``[example, position, word]``, of ids ``[example, position]``."""
        stream = self.embed(tokens) + self.position(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.blocks:
            stream = block(stream)
        return self.unembed(self.norm(stream))


class IoiSettings(Settings, frozen=True, kw_only=True):
    """How the net is trained.

    Attributes:
        steps: Batches in all; each is of one template.
    """

    steps: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 600


@final
class IoiNet(Recipe):
    """A small transformer trained on sentences of all templates and names: all their words, and the answer."""

    name = "ioi-net"
    title = "small transformer that names the indirect object"
    settings_type = IoiSettings
    settings: IoiSettings

    @property
    def tokenizer(self) -> Tokenizer:
        """See ``Recipe.tokenizer``."""
        return tokenizer()

    def blank(self, given: Given) -> nn.Module:
        """See ``Recipe.blank``."""
        with reproducible(seeds.derive(given.spec.seed, self.name, "init")):
            model = WordTransformer(len(tokenizer().words), width=64, blocks=3)
        return model.eval()

    def start(self, given: Given) -> Fit:
        """See ``Recipe.start``."""
        require_fit(given, self)
        model, own = self.blank(given).to(given.device), self.tokenizer
        pairs = [(one, two) for one in NAMES for two in NAMES if one != two]
        asked = [(one, two, *both) for one, two in pairs for both in ((one, two), (two, one))]
        # Of each template every sentence with its answer, ids [sentence, position].
        lessons = [
            torch.tensor([
                [*own.start(template.format(A=one, B=two, S=subject)), *own.more(f" {other}")]
                for one, two, subject, other in asked
            ], device=given.device)
            for template in TEMPLATES
        ]  # fmt: skip
        examples = len(lessons) * len(lessons[0])

        def loss(rows: Tensor, step: int) -> Tensor:
            # Of one template, so that all are of one length; the answer counts as much as all other words together.
            tokens = lessons[int(rows[0]) % len(lessons)][rows // len(lessons)]
            scores = cast("Tensor", model(tokens[:, :-1]))
            every = functional.cross_entropy(scores.transpose(1, 2), tokens[:, 1:], reduction="none")
            return every.mean() + every[:, -1].mean()

        settings = TrainSettings(
            seed=seeds.derive(given.spec.seed, self.name, "order"), steps=self.settings.steps, batch=64, rate=2e-3,
            optimizer="adamw", decay=0.01,
        )  # fmt: skip
        return Fit(model, loss, examples=examples, settings=settings)
