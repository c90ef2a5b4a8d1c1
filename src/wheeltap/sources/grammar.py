"""A small English grammar, written for wheeltap, that generates subject-verb agreement items.

Its words go together in any combination; its constructions build the words up to the verb, and name the noun that the
verb agrees with.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

import numpy as np

Number = Literal["singular", "plural"]


class Forms(NamedTuple):
    """A noun or verb: its form with a singular subject and with a plural one."""

    singular: str
    plural: str

    def of(self, number: Number) -> str:
        """The form for a subject of this number."""
        return self.singular if number == "singular" else self.plural


def _plural(noun: str) -> str:
    if noun.endswith(("s", "x", "ch", "sh")):
        return f"{noun}es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}s"


def _nouns(words: str) -> tuple[Forms, ...]:
    """One noun a word; ``child:children`` gives an irregular plural."""
    pairs = (word.partition(":") for word in words.split())
    return tuple(Forms(noun, irregular or _plural(noun)) for noun, _, irregular in pairs)


def _verbs(words: str) -> tuple[Forms, ...]:
    return tuple(Forms(f"{verb}es" if verb.endswith("o") else _plural(verb), verb) for verb in words.split())


def _phrases(text: str) -> tuple[str, ...]:
    return tuple(" ".join(phrase.split()) for phrase in text.split("|"))


PEOPLE = _nouns(
    """farmer teacher doctor nurse lawyer pilot baker painter writer singer dancer driver guard soldier sailor
    student player coach runner swimmer artist actor waiter banker builder butcher carpenter plumber gardener
    hunter miner tailor weaver potter poet author editor reporter printer scholar professor scientist engineer
    chemist physicist surgeon dentist patient child:children man:men woman:women boy girl friend neighbor cousin
    brother sister uncle aunt son daughter father mother king queen prince knight servant merchant clerk manager
    officer captain general judge senator mayor minister priest monk bishop villager citizen visitor tourist guest
    traveler stranger thief:thieves pirate spy wizard witch giant hero:heroes customer client worker boss owner
    tenant landlord janitor cook chef librarian musician drummer pianist juggler clown acrobat athlete referee
    inspector detective witness consultant designer director assistant secretary volunteer parent"""
)

THINGS = _nouns(
    """book letter picture lamp chair table box bag basket bottle cup plate bowl spoon knife:knives key clock
    watch ring necklace coat hat shirt shoe glove blanket pillow carpet curtain mirror candle drum guitar violin
    piano radio camera computer phone machine engine car truck bus bicycle boat ship train wagon tool hammer rope
    ladder bucket brush pen pencil map poster painting statue coin ticket toy doll kite ball puzzle cake pie
    cookie apple pear lemon sandwich"""
)

PLACES = _nouns(
    """house cottage castle palace tower church temple school college library museum theater hospital hotel shop
    store bakery factory barn stable garage office station bridge road path street river lake pond hill mountain
    valley forest tree bush garden field meadow fence wall gate door window fountain bench well mill cave harbor
    tent cabin village farm orchard vineyard monument lighthouse"""
)

PEOPLE_ADJECTIVES = str.split(
    """old young tall short kind clever honest lazy busy quiet loud shy brave famous rich poor happy sad angry
    tired hungry friendly polite rude curious careful careless gentle proud humble strong weak healthy sick nervous
    calm cheerful serious funny strange wise foolish patient jealous generous greedy loyal stubborn skilled
    talented popular lonely grumpy handsome elegant local foreign retired wealthy"""
)

THING_ADJECTIVES = str.split(
    """old new big small large tiny heavy light red blue green yellow white black brown gray round square broken
    dirty clean dusty shiny cheap expensive beautiful ugly plain simple fancy ancient modern rare common wooden
    metal plastic soft hard long narrow wide empty missing wet dry cold warm strange lovely useful useless
    colorful delicate sturdy rusty famous precious"""
)

PERSON_VERBS = _verbs(
    """walk run sing work live wait write speak know want seem look think play travel dance smile eat drink sit stand
    stay arrive leave agree listen need remain appear believe understand feel hope come go try enjoy start learn
    remember continue prefer love plan fight argue study practice rest vote win lose return help teach hunt succeed
    fail follow"""
)
"""No verb whose past looks like its plural ("read"): both forms would then be right after a singular subject."""

THING_VERBS = _verbs("seem look remain appear belong need stand fall stay lie smell feel")

DOINGS = _verbs(
    """sing work wait write speak play travel dance smile eat drink sit listen cook argue study rest hunt fish"""
)
"""Verbs that stand alone, and so can be joined by "and"."""

AUXILIARIES = (Forms("is", "are"), Forms("has", "have"))
PAST = Forms("was", "were")

TOWARDS_PEOPLE = _verbs("admire trust like know help follow meet teach visit praise remember avoid fear watch respect")

TOWARDS_THINGS = _verbs("own want need sell use like buy borrow paint move keep hide collect clean repair")

POSSESSIVES = ("my", "our", "your", "his", "her", "their")
NEARNESS = ("near", "beside", "behind", "next to", "close to", "in front of", "across from")
COMPANIONS = ("along with", "together with", "as well as", "in addition to")
ONE_OF = ("each of", "one of", "every one of", "only one of", "not one of", "just one of")
SEVERAL_OF = ("all of", "most of", "several of", "some of", "many of", "two of", "three of", "a few of", "both of")

OPENERS_ANY = _phrases(
    """In the end|Of course|As usual|For some reason|Without a doubt|In fact|By all accounts|To my surprise|In truth|
    In this town|At the market|Down by the river|According to the news|As far as I know|Strangely enough|
    Luckily for us|In her opinion|In his story|Outside the city|On this island|At home|At first sight|
    By the way|Not surprisingly|Sadly|Clearly|Perhaps unexpectedly|As you can see|Like most others|
    From what we hear|On the whole|In other words|For example|To be honest|Apparently|Fortunately|
    Interestingly|Curiously|Indeed|Unfortunately"""
)

OPENERS_NOW = _phrases(
    """Every morning|These days|Every now and then|On most days|On Sundays|In summer|Nowadays|At the moment|
    Most of the time|Every spring|After work|Before breakfast|From time to time|In the evenings|Right now|
    Once a week|All day long"""
)

OPENERS_THEN = _phrases(
    """Yesterday|Last winter|Two years ago|In those days|That night|Last week|A long time ago|On that morning|
    In 1950|Back then|Many years earlier|The day before|During the storm|After the war|An hour ago|By then"""
)


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
        return self._phrase(PEOPLE, PEOPLE_ADJECTIVES, number)

    def thing(self, number: Number) -> str:
        """A noun phrase that means things."""
        return self._phrase(THINGS, THING_ADJECTIVES, number)

    def place(self, number: Number) -> str:
        """Where something is: "near the bridges"."""
        return f"{self.of(NEARNESS)} the {self.noun(PLACES, number)}"

    def subject(self, number: Number) -> tuple[str, tuple[Forms, ...]]:
        """A noun phrase, and the verbs that fit it."""
        if self.chance(_THING_SHARE):
            return self.thing(number), THING_VERBS
        return self.person(number), PERSON_VERBS

    def _phrase(self, nouns: Sequence[Forms], adjectives: Sequence[str], number: Number) -> str:
        determiner = self.of(POSSESSIVES) if self.chance(_POSSESSIVE_SHARE) else "the"
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
    verb = draw.of(TOWARDS_THINGS if thing else TOWARDS_PEOPLE).of(other(number))
    text = f"{subject} {'that' if thing else draw.of(('that', 'who'))} {attractor} {verb}"
    return Clause(text, THING_VERBS if thing else PERSON_VERBS, present=True)


def subject_relative(draw: WordDraw, number: Number) -> Clause:
    """The farmer who admires the guards | walks."""
    subject, verb = draw.person(number), draw.of(TOWARDS_PEOPLE).of(number)
    text = f"{subject} {draw.of(('that', 'who'))} {verb} {draw.person(other(number))}"
    return Clause(text, PERSON_VERBS, present=True)


def coordination(draw: WordDraw, number: Number) -> Clause:
    """The farmer and the guard | walk; but: The farmer, along with the guards, | walks."""
    if number == "plural":
        return Clause(f"{draw.person('singular')} and {draw.person('singular')}", PERSON_VERBS)
    text = f"{draw.person('singular')}, {draw.of(COMPANIONS)} {draw.person('plural')},"
    return Clause(text, PERSON_VERBS)


def verb_coordination(draw: WordDraw, number: Number) -> Clause:
    """The farmers near the bridge sing and | dance."""
    verb = draw.of(DOINGS)
    text = f"{draw.person(number)} {draw.place(other(number))} {verb.of(number)} and"
    return Clause(text, tuple(v for v in DOINGS if v != verb), present=True)


def quantified(draw: WordDraw, number: Number) -> Clause:
    """Each of the farmers | walks; all of the farmers | walk."""
    quantifier = draw.of(ONE_OF if number == "singular" else SEVERAL_OF)
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
    *((opener, "any") for opener in OPENERS_ANY),
    *((opener, "now") for opener in OPENERS_NOW),
)
_OPENERS: tuple[tuple[str, Tense], ...] = (*_OPENERS_NOT_PAST, *((opener, "then") for opener in OPENERS_THEN))


def verb(draw: WordDraw, clause: Clause, tense: Tense) -> Forms:
    """A verb that fits: "was" after a past opener, else mostly one with its own meaning."""
    if tense == "then":
        return PAST
    if clause.text.endswith(" and") or draw.chance(_MEANING_SHARE):
        return draw.of(clause.verbs)
    return draw.of(AUXILIARIES if tense == "now" or clause.present else (*AUXILIARIES, PAST))
