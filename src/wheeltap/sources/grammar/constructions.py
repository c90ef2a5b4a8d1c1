"""The constructions: each builds the words up to the verb, and names the noun that the verb agrees with."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np

from wheeltap.sources.grammar import words
from wheeltap.sources.grammar.words import Forms, Number

Tense = Literal["any", "now", "then"]
T = TypeVar("T")

_OPENER_SHARE = 0.55
_ADJECTIVE_SHARE = 0.5
_THING_SHARE = 0.3
_POSSESSIVE_SHARE = 0.35
_MEANING_SHARE = 0.6


@dataclass(frozen=True)
class Clause:
    """Words from the subject's first to the last before the verb, and what fits after them.

    Attributes:
        text: Lower-case at its start.
        verbs: Verbs that make sense with the subject.
        present: Whether a verb in the present tense stands before, so that the verb should be in it too.
    """

    text: str
    verbs: tuple[Forms, ...]
    present: bool = False


class WordDraw:
    """Random choices for one item; no noun is drawn twice."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.used: set[Forms] = set()

    def of(self, options: Sequence[T]) -> T:
        """One of ``options``, all as likely."""
        return options[int(self.rng.integers(len(options)))]

    def chance(self, share: float) -> bool:
        """True in a share of draws."""
        return bool(self.rng.random() < share)

    def noun(self, nouns: Sequence[Forms], number: Number) -> str:
        """A noun that this item does not have yet."""
        drawn = self.of([noun for noun in nouns if noun not in self.used])
        self.used.add(drawn)
        return drawn.of(number)

    def person(self, number: Number) -> str:
        """A noun phrase that means people."""
        return self._phrase(words.PEOPLE, words.PEOPLE_ADJECTIVES, number)

    def thing(self, number: Number) -> str:
        """A noun phrase that means things."""
        return self._phrase(words.THINGS, words.THING_ADJECTIVES, number)

    def place(self, number: Number) -> str:
        """Where something is: "near the bridges"."""
        return f"{self.of(words.NEARNESS)} the {self.noun(words.PLACES, number)}"

    def subject(self, number: Number) -> tuple[str, tuple[Forms, ...]]:
        """A noun phrase, and the verbs that fit it."""
        if self.chance(_THING_SHARE):
            return self.thing(number), words.THING_VERBS
        return self.person(number), words.PERSON_VERBS

    def _phrase(self, nouns: Sequence[Forms], adjectives: Sequence[str], number: Number) -> str:
        determiner = self.of(words.POSSESSIVES) if self.chance(_POSSESSIVE_SHARE) else "the"
        adjective = [self.of(adjectives)] if self.chance(_ADJECTIVE_SHARE) else []
        return " ".join([determiner, *adjective, self.noun(nouns, number)])


def other(number: Number) -> Number:
    """The opposite number."""
    return "plural" if number == "singular" else "singular"


def simple(draw: WordDraw, number: Number) -> Clause:
    """The old farmers | walk."""
    return Clause(*draw.subject(number))


def prepositional(draw: WordDraw, number: Number) -> Clause:
    """The farmers near the bridge | walk."""
    text, fitting = draw.subject(number)
    return Clause(f"{text} {draw.place(other(number))}", fitting)


def two_prepositions(draw: WordDraw, number: Number) -> Clause:
    """The farmers near the bridge behind the church | walk."""
    text, fitting = draw.subject(number)
    return Clause(f"{text} {draw.place(other(number))} {draw.place(other(number))}", fitting)


def object_relative(draw: WordDraw, number: Number) -> Clause:
    """The farmer that the guards admire | walks."""
    thing = draw.chance(_THING_SHARE)
    subject = draw.thing(number) if thing else draw.person(number)
    attractor = draw.person(other(number))
    verb = draw.of(words.TOWARDS_THINGS if thing else words.TOWARDS_PEOPLE).of(other(number))
    text = f"{subject} {'that' if thing else draw.of(('that', 'who'))} {attractor} {verb}"
    return Clause(text, words.THING_VERBS if thing else words.PERSON_VERBS, present=True)


def subject_relative(draw: WordDraw, number: Number) -> Clause:
    """The farmer who admires the guards | walks."""
    subject, verb = draw.person(number), draw.of(words.TOWARDS_PEOPLE).of(number)
    text = f"{subject} {draw.of(('that', 'who'))} {verb} {draw.person(other(number))}"
    return Clause(text, words.PERSON_VERBS, present=True)


def coordination(draw: WordDraw, number: Number) -> Clause:
    """The farmer and the guard | walk; but: The farmer, along with the guards, | walks."""
    if number == "plural":
        return Clause(f"{draw.person('singular')} and {draw.person('singular')}", words.PERSON_VERBS)
    text = f"{draw.person('singular')}, {draw.of(words.COMPANIONS)} {draw.person('plural')},"
    return Clause(text, words.PERSON_VERBS)


def verb_coordination(draw: WordDraw, number: Number) -> Clause:
    """The farmers near the bridge sing and | dance."""
    verb = draw.of(words.DOINGS)
    text = f"{draw.person(number)} {draw.place(other(number))} {verb.of(number)} and"
    return Clause(text, tuple(v for v in words.DOINGS if v != verb), present=True)


def quantified(draw: WordDraw, number: Number) -> Clause:
    """Each of the farmers | walks; all of the farmers | walk."""
    quantifier = draw.of(words.ONE_OF if number == "singular" else words.SEVERAL_OF)
    text, fitting = draw.subject("plural")
    return Clause(f"{quantifier} {text}", fitting)


CONSTRUCTIONS: dict[str, Callable[[WordDraw, Number], Clause]] = {
    "simple": simple,
    "prepositional": prepositional,
    "two_prepositions": two_prepositions,
    "object_relative": object_relative,
    "subject_relative": subject_relative,
    "coordination": coordination,
    "verb_coordination": verb_coordination,
    "quantified": quantified,
}


def opened(draw: WordDraw, clause: Clause) -> tuple[str, Tense]:
    """The clause as the start of a sentence, often after an opener, and the tense that the opener asks for."""
    if not draw.chance(_OPENER_SHARE):
        return clause.text[0].upper() + clause.text[1:], "any"
    opener, tense = draw.of(_OPENERS_NOT_PAST if clause.present else _OPENERS)
    return f"{opener}, {clause.text}", tense


_OPENERS_NOT_PAST: tuple[tuple[str, Tense], ...] = (
    *((opener, "any") for opener in words.OPENERS_ANY),
    *((opener, "now") for opener in words.OPENERS_NOW),
)
_OPENERS: tuple[tuple[str, Tense], ...] = (
    *_OPENERS_NOT_PAST,
    *((opener, "then") for opener in words.OPENERS_THEN),
)


def verb(draw: WordDraw, clause: Clause, tense: Tense) -> Forms:
    """A verb that fits: "was" after a past opener, else mostly one with its own meaning."""
    if tense == "then":
        return words.PAST
    if clause.text.endswith(" and") or draw.chance(_MEANING_SHARE):
        return draw.of(clause.verbs)
    return draw.of(words.AUXILIARIES if tense == "now" or clause.present else (*words.AUXILIARIES, words.PAST))
