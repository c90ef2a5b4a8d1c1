"""Tasks whose examples have known attributes: sentences with two names, agreement of verbs, digits.

Attributes are the factors of a task. Those of the two text tasks are a full factorial design, so that each example has
others that differ from it in one attribute alone; all items of a task have the same options.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from typing import Final, TypeVar, cast, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wheeltap.core import canon
from wheeltap.core.annotations import Annotation
from wheeltap.core.choices import ChoiceTask, Tokenizer
from wheeltap.core.errors import DataError, UnknownName, UsageError
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask, Task
from wheeltap.recipes.base import Given, spec
from wheeltap.recipes.make import once
from wheeltap.sources import digits as images
from wheeltap.sources.base import DataSource, ExampleReader, LoadedModel, ModelSource
from wheeltap.sources.grammar import NEARNESS, PEOPLE, TOWARDS_PEOPLE, Forms, Number
from wheeltap.suites.dictionaries.nets import NAMES, TEMPLATES
from wheeltap.suites.dictionaries.nets import tokenizer as own_tokenizer

_FEWEST: Final = 4  # words of a kind that must be one token each: of fewer an attribute has too few values


@final
@dataclass(frozen=True)
class AttributeWords(Annotation):
    """What examples and the values of their attributes are called, for reports."""

    name = "wordings"

    texts: tuple[str, ...]  # of each example
    values: Mapping[str, tuple[str, ...]]  # of each attribute, the name of each of its values

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.texts)

    @property
    def digest(self) -> str:
        """See ``Annotation.digest``."""
        return canon.key("wordings", [self.texts, dict(self.values)])

    def part(self, index: Sequence[int]) -> "AttributeWords":
        """See ``Annotation.part``."""
        return AttributeWords(tuple(self.texts[at] for at in index), self.values)


_Word = TypeVar("_Word", tuple[str], Forms)


def _single(tokenizer: Tokenizer, given: Sequence[_Word], *, what: str) -> list[_Word]:
    """Those of these words of which each form is one token.

    Raises:
        DataError: If there are fewer than ``_FEWEST``.
    """
    kept = list[_Word]()
    for forms in given:
        with suppress(DataError):  # a word that the tokenizer does not know
            if all(len(tokenizer.more(f" {form}")) == 1 for form in forms):
                kept.append(forms)
    if len(kept) < _FEWEST:
        raise DataError("The tokenizer divides the words that this task is made of.", where=f"{what} of attributes",
                        expected=f"at least {_FEWEST} of one token each, such as {'/'.join(given[0])!r}",
                        got=f"{len(kept)} of {len(given)}",
                        do="Give a task of your own, with factors: task.with_factors({...}).")  # fmt: skip
    return kept


def ioi(tokenizer: Tokenizer | None = None) -> ChoiceTask:
    """Sentences that name two people and one of them again, and go on with the other one; the options are all names.

    Factors: ``io`` and ``s``, numbers of the name that stands once and of the one that is repeated, each among half of
    the names that are one token; ``order``, whether the repeated one stands first. All combinations in all templates,
    which are the groups.

    Args:
        tokenizer: Of the model; that of the recipe ``ioi-net`` where not given.

    Raises:
        DataError: If too few names are one token.
    """
    reads = own_tokenizer() if tokenizer is None else tokenizer
    kept = [name for (name,) in _single(reads, [(name,) for name in NAMES], what="names")]
    half = len(kept) // 2
    kept = kept[: 2 * half]
    design = list(product(range(len(TEMPLATES)), range(half), range(half), range(2)))
    texts = list[str]()
    for template, io, s, order in design:
        pair = (kept[io], kept[half + s])
        first, second = pair[::-1] if order else pair
        texts.append(TEMPLATES[template].format(A=first, B=second, S=pair[1]))
    options, table = [reads.more(f" {name}") for name in kept], np.array(design)
    contexts = [reads.start(text) for text in texts]
    made = ChoiceTask(contexts, [options] * len(design), table[:, 1].tolist(), name="attributes:ioi")
    made = made.with_factors({"io": table[:, 1], "s": table[:, 2], "order": table[:, 3]}).with_groups(table[:, 0])
    values = {"io": tuple(kept[:half]), "s": tuple(kept[half:]), "order": ("repeated second", "repeated first")}
    return made.with_annotation(AttributeWords(tuple(texts), values))


CONSTRUCTIONS: Final = ("prepositional", "object relative", "subject relative")
"""The farmer near the guards | is; the farmer that the guards admire | is; the farmer that admires the guards | is."""

SENTENCES: Final = 24  # sets of words of the agreement task: a group each


def agreement(tokenizer: Tokenizer) -> ChoiceTask:
    """Starts of sentences that go on with "is" or "are", by the number of their subject.

    Factors: ``number`` of the subject and ``attractor``, that of the other noun, 0 singular and 1 plural;
    ``construction``, of ``CONSTRUCTIONS``. All combinations with all sets of words; groups are these sets.

    Raises:
        DataError: If too few words are one token.
    """
    nouns, verbs = _single(tokenizer, PEOPLE, what="nouns"), _single(tokenizer, TOWARDS_PEOPLE, what="verbs")
    numbers: tuple[Number, Number] = ("singular", "plural")
    design = list(product(range(SENTENCES), range(len(CONSTRUCTIONS)), range(2), range(2)))
    texts = list[str]()
    for at, construction, number, attractor in design:
        subject = nouns[at % len(nouns)].of(numbers[number])
        # Another noun, and another one for the same subject the next time.
        other = nouns[(at + 1 + at // len(nouns) % (len(nouns) - 1)) % len(nouns)].of(numbers[attractor])
        verb, near = verbs[at % len(verbs)], NEARNESS[at % len(NEARNESS)]
        admires, admire = verb.of(numbers[number]), verb.of(numbers[attractor])
        rest = (f"{near} the {other}", f"that the {other} {admire}", f"that {admires} the {other}")
        texts.append(f"The {subject} {rest[construction]}")
    options = [tokenizer.more(" is"), tokenizer.more(" are")]
    contexts, table = [tokenizer.start(text) for text in texts], np.array(design)
    made = ChoiceTask(contexts, [options] * len(design), table[:, 2].tolist(), name="attributes:agreement")
    made = made.with_factors({"number": table[:, 2], "attractor": table[:, 3], "construction": table[:, 1]})
    values = {"number": numbers, "attractor": numbers, "construction": CONSTRUCTIONS}
    return made.with_groups(table[:, 0]).with_annotation(AttributeWords(tuple(texts), values))


LEVELS: Final = 3  # values of the stroke width and of the slant, each of about as many training images


def digits() -> Task:
    """The test split of digits; factors ``class``, ``stroke`` and ``slant`` (see ``strokes``), in thirds."""
    data = images.split()
    fitted, held = strokes(data.train_inputs), strokes(data.test_inputs)
    levels = np.zeros(held.shape, dtype=np.int64)
    for level, row, known in zip(levels, held, fitted, strict=True):
        cuts = cast("NDArray[np.float64]", np.quantile(known, np.arange(1, LEVELS) / LEVELS))
        level[:] = np.searchsorted(cuts, row, side="right")
    made = Task(data.test_inputs, data.test_targets, name="attributes:digits", more=data.train_inputs)
    made = made.with_factors({"class": data.test_targets, "stroke": levels[0], "slant": levels[1]})
    widths, slants = ("thin", "medium", "thick"), ("left", "upright", "right")
    rows = enumerate(zip(data.test_targets, *levels, strict=True))
    named = tuple(f"image {at}: {int(digit)}, {widths[one]}, {slants[two]}" for at, (digit, one, two) in rows)
    values = {"class": tuple("0123456789"), "stroke": widths, "slant": slants}
    return made.with_annotation(AttributeWords(named, values))


def strokes(inputs: Tensor) -> NDArray[np.float64]:
    """Width of the strokes, in pixels, and their slant, a tangent (above 0: the top leans right), ``[2, example]``.

    The width is twice the ink by the length of its outline (total variation): that of a long stroke. The slant is the
    shear that leaves no covariance of the ink's columns with its rows.
    """
    image = torch.nn.functional.pad(inputs.double().reshape(-1, 8, 8), (1, 1, 1, 1))
    down, across = image.diff(dim=1)[:, :, :-1], image.diff(dim=2)[:, :-1]
    outline = (down.square() + across.square()).sqrt().sum((1, 2))
    line = torch.arange(10, dtype=torch.float64)
    share = image / image.sum((1, 2), keepdim=True)
    row = line - (share.sum(2) * line).sum(1)[:, None]
    column = line - (share.sum(1) * line).sum(1)[:, None]
    joint = torch.einsum("erc,er,ec->e", share, row, column)
    slant = -joint / torch.einsum("er,er->e", share.sum(2), row.square())
    return torch.stack([2.0 * image.sum((1, 2)) / outline, slant]).numpy()


@final
class IoiModels(ModelSource):
    """The net of the recipe ``ioi-net``, with the task that it was trained for."""

    form = "ioi"
    title = "A small transformer trained here to name the indirect object of a sentence."

    def load(self, rest: str, *, name: str) -> LoadedModel:
        """See ``ModelSource.load``; half a minute on one core, the first time on a machine."""
        net = once(Given(spec("ioi-net", seed=0)), shelf="dictionaries")
        return LoadedModel(Subject(net, name=name), ioi, tokenizer=own_tokenizer())


@final
class AttributeData(DataSource):
    """A task with known attributes, by its name."""

    form = "attributes:NAME"
    title = "Examples with known attributes, for dictionaries: ioi, agreement, digits."

    def load(self, rest: str, reader: ExampleReader) -> BaseTask:
        """See ``DataSource.load``; ``DataError`` if the model's tokenizer divides the words that a task is made of."""
        if rest == "digits":
            return digits()
        if rest == "ioi":
            return ioi(reader.tokenizer)
        if rest != "agreement":
            raise UnknownName("task with attributes", rest, ("ioi", "agreement", "digits"))
        if reader.tokenizer is None:
            raise UsageError("The examples of this task are text.", where="attributes:agreement", got="a model that "
                             "reads no text", expected="a language model with its tokenizer: smollm2, hf:DIR or "
                             "gguf:FILE")  # fmt: skip
        return agreement(reader.tokenizer)
