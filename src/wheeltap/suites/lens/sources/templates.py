"""A set of ambiguous sentences by template: attachment, scope, pronouns; with readings, labels and distractors.

Half of the items are not ambiguous: their premise is one of the readings of another draw of the same template.
"""

from collections.abc import Callable
from typing import Final, final

import numpy as np

from wheeltap.core import seeds
from wheeltap.core.choices import ChoiceTask, Tokenizer
from wheeltap.core.errors import UsageError
from wheeltap.sources.base import DataSource, Reader
from wheeltap.suites.lens.sources.ambiguous import Example, Several, task_of
from wheeltap.suites.lens.specs import Label

EACH: Final = 32
"""Ambiguous items of each kind; as many are not ambiguous."""

NAME: Final = "ambiguous"
"""What ``--data`` is given for this set."""


def _words(text: str) -> list[str]:
    return text.split()


_PEOPLE: Final = _words(
    "teacher nurse lawyer farmer baker painter pilot sailor singer doctor writer banker tailor waiter driver guard"
)
_GROUPS: Final = _words("students guests players workers tourists soldiers children voters actors members")
_TOOLS: Final = _words("telescope camera mirror torch tablet drone lamp microscope map radio")
_SAW: Final = _words("watched spotted found noticed surprised followed")
_CALLED: Final = _words("called thanked visited hugged praised left")
_DONE: Final = (
    "won the prize", "lost the keys", "passed the exam", "sold the house", "read the letter", "missed the train",
    "quit the job", "paid the bill",
)  # fmt: skip
_VERBS: Final = (
    ("leave", "left"), ("complain", "complained"), ("sing", "sang"), ("vote", "voted"), ("return", "returned"),
    ("speak", "spoke"), ("smile", "smiled"), ("win", "won"),
)  # fmt: skip
_CAUSES: Final = _words("rain noise fire strike delay snow price heat")


def _two(rng: np.random.Generator, words: list[str], count: int = 2) -> list[str]:
    return [str(word) for word in rng.choice(words, count, replace=False)]


Drawn = tuple[str, str, tuple[tuple[str, Label], tuple[str, Label]], str]
"""Premise, hypothesis, each reading with its label, distractor."""


def _attachment(rng: np.random.Generator) -> Drawn:
    """Who has the tool: the one who saw, or the one who was seen."""
    (one, two, other), tool, saw = _two(rng, _PEOPLE, 3), rng.choice(_TOOLS), rng.choice(_SAW)
    return (
        f"The {one} {saw} the {two} with the {tool}.", f"The {one} used the {tool}.",
        ((f"Using the {tool}, the {one} {saw} the {two}.", "entailment"),
         (f"The {one} {saw} the {two} who had the {tool}.", "neutral")),
        f"The {one} {saw} the {other} with the {tool}.",
    )  # fmt: skip


def _quantified(rng: np.random.Generator) -> Drawn:
    """Not all, or none."""
    (group, other), (verb, past) = _two(rng, _GROUPS), _VERBS[rng.integers(len(_VERBS))]
    return (
        f"All of the {group} did not {verb}.", f"At least one of the {group} {past}.",
        ((f"None of the {group} {past}.", "contradiction"),
         (f"Some but not all of the {group} {past}.", "entailment")),
        f"All of the {other} did not {verb}.",
    )  # fmt: skip


def _because(rng: np.random.Generator) -> Drawn:
    """A cause of what was not done, or none of what was."""
    (group, other), (verb, past) = _two(rng, _GROUPS), _VERBS[rng.integers(len(_VERBS))]
    cause = rng.choice(_CAUSES)
    return (
        f"The {group} did not {verb} because of the {cause}.", f"The {group} {past}.",
        ((f"Because of the {cause}, the {group} did not {verb}.", "contradiction"),
         (f"The {group} {past}, but not because of the {cause}.", "entailment")),
        f"The {other} did not {verb} because of the {cause}.",
    )  # fmt: skip


def _scope(rng: np.random.Generator) -> Drawn:
    return _quantified(rng) if rng.random() < 0.5 else _because(rng)


def _pronoun(rng: np.random.Generator) -> Drawn:
    """Whom "she" or "he" is."""
    (one, two, other), done = _two(rng, _PEOPLE, 3), rng.choice(_DONE)
    called, who = rng.choice(_CALLED), rng.choice(["she", "he"])
    return (
        f"The {one} {called} the {two} after {who} had {done}.", f"The {two} had {done}.",
        ((f"The {one} {called} the {two} after the {one} had {done}.", "neutral"),
         (f"The {one} {called} the {two} after the {two} had {done}.", "entailment")),
        f"The {one} {called} the {other} after {who} had {done}.",
    )  # fmt: skip


KINDS: Final[dict[str, Callable[[np.random.Generator], Drawn]]] = {
    "attachment": _attachment, "scope": _scope, "pronoun": _pronoun,
}  # fmt: skip


def examples(*, seed: int = 0, each: int = EACH) -> tuple[Example, ...]:
    """``each`` ambiguous items of every kind and as many that are not, in rounds; no premise twice.

    Args:
        seed: Equal seeds give equal items, on every machine.
        each: Ambiguous items of a kind.
    """
    seen: set[str] = set()
    streams = {kind: seeds.generator(seed, "ambiguous", kind) for kind in KINDS}
    made = [
        _example(kind, number, streams[kind], seen) for number in range(2 * each) for kind in KINDS
    ]  # fmt: skip
    return tuple(made)


def _example(kind: str, number: int, rng: np.random.Generator, seen: set[str]) -> Example:
    """An ambiguous item for an even ``number``; for an odd one, one of the readings of another draw."""
    while True:
        premise, hypothesis, meant, distractor = KINDS[kind](rng)
        plain = number % 2 == 1
        if plain:
            premise, _ = meant[number // 2 % 2]
        if premise not in seen:
            break
    seen.add(premise)
    readings = {} if plain else {"premise": Several((meant[0][0], meant[1][0]), distractor)}
    labels = (meant[number // 2 % 2][1],) if plain else (meant[0][1], meant[1][1])
    return Example(id=f"{kind}-{number}", premise=premise, hypothesis=hypothesis, labels=labels, readings=readings,
                   kind=kind)  # fmt: skip


@final
class AmbiguousData(DataSource):
    """See ``task``."""

    form = NAME
    title = "Ambiguous sentences with their readings, generated; for language models."

    def load(self, rest: str, reader: Reader) -> ChoiceTask:
        """See ``DataSource.load``.

        Raises:
            UsageError: If they are not for a language model.
        """
        if reader.tokenizer is None or reader.classifier is not None:
            raise UsageError(
                "Ambiguous sentences are for language models.",
                where=NAME,
                expected="smollm2, hf:DIR or gguf:FILE of a causal language model",
                got="a model that reads no text, or a classifier",
            )
        return task(reader.tokenizer)


def task(tokenizer: Tokenizer, *, seed: int = 0) -> ChoiceTask:
    """The set as a task for a model that reads ``tokenizer``'s tokens."""
    return task_of(examples(seed=seed), tokenizer, name=NAME)
