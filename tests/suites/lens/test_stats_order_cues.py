"""Orders that texts tell of themselves are seen, whatever tells it; orders at random are not."""

import datetime
from collections.abc import Callable

import numpy as np
import pytest

from benchmarks.contamination import NOUNS, ROMAN
from wheeltap.suites.lens.stats.order_cues import CUES, SHOWN, cues

DAY = datetime.date(2021, 3, 1)


def drawn(seed: int = 0) -> list[str]:
    return [str(word) for word in np.random.default_rng(seed).permutation(NOUNS)]


def found(texts: list[str], *, shards: int = 8) -> set[str]:
    parts = np.array_split(np.arange(len(texts)), shards)
    return {cue for cue, p in cues(texts, parts, np.random.default_rng(0)).items() if p <= SHOWN}


def date(at: int, form: str, step: int = 1) -> str:
    return (DAY + datetime.timedelta(days=step * at)).strftime(form)


MONTHS = ["Jan", "Feb", "März", "April", "Mai", "Juni", "Juli", "Aug"]
SPELLED = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
HAN = (
    "一", "二", "三", "四", "五", "六", "七", "八", "九", "十", "十一", "十二", "十三", "十四", "十五", "十六",
    "十七", "十八", "十九", "二十",
)  # fmt: skip

FORMS: list[tuple[str, Callable[[int, str], str]]] = [
    ("numbers", lambda at, word: f"Question {at + 1}. What is a {word}?"),
    ("numbers", lambda at, word: f"What is a {word}? ({90 - 2 * at} left)"),
    ("numbers", lambda at, word: f"{at % 10} of 10: {word}"),
    ("numbers", lambda at, word: f"In {1900 + 4 * at} the {word} was made."),
    ("numbers", lambda at, word: f"{ROMAN[at % 20]}. Draw a {word}"),
    ("numbers", lambda at, word: f"Step {SPELLED[at % 12]}: {word}"),
    ("numbers", lambda at, word: f"Paso {['uno', 'dos', 'tres', 'cuatro', 'cinco', 'seis'][at % 6]}: {word}"),
    ("numbers", lambda at, word: f"The twenty-{['first', 'second', 'third', 'fourth', 'fifth'][at % 5]} {word}"),
    ("numbers", lambda at, word: f"{HAN[at % 20]}、{word}"),
    ("numbers", lambda at, word: f"{''.join(chr(0x660 + int(one)) for one in str(at + 1))} {word}"),
    ("dates", lambda at, word: f"On {date(at, '%Y-%m-%d')} the {word} was sold."),
    ("dates", lambda at, word: f"{date(at, '%d.%m.%Y', 5)}: {word}"),
    ("dates", lambda at, word: f"{date(at, '%m/%d/%Y', 9)}: {word}"),
    ("dates", lambda at, word: f"Sold on {date(at, '%B %d, %Y', 3)}, a {word}"),
    ("dates", lambda at, word: f"Verkauft am 1. {MONTHS[at % 8]}: {word}"),
    ("dates", lambda at, word: f"{date(at, '%A')}: buy a {word}"),
    ("letters", lambda at, word: f"{'ABCD'[at % 4]}) {word}"),
    ("similar neighbors", lambda at, word: (f"What is a {word}?", f"Who likes a {word}?", f"Buy {word}.")[at % 3]),
    ("similar neighbors", lambda at, word: f"{('law', 'medicine', 'history', 'music')[at // 10]}: a {word}"),
]


@pytest.mark.parametrize(("cue", "form"), FORMS)
def test_what_texts_tell_of_their_order(cue: str, form: Callable[[int, str], str]) -> None:
    assert cue in found([form(at, word) for at, word in enumerate(drawn())])


@pytest.mark.parametrize("tail", ["?", " that stood there in the yard for so many of the years, would you say?"])
def test_texts_that_are_sorted(tail: str) -> None:
    for order in (sorted(NOUNS), sorted(NOUNS)[::-1], sorted(NOUNS, key=lambda word: word[::-1])):
        assert "alphabetical order" in found([f"Tell me what is a {word}{tail}" for word in order])
    assert "lengths" in found([f"What is a {word}{tail}" for word in sorted(drawn(), key=len)])
    assert found([f"What is a {word}{tail}" for word in [*drawn()[:20], *sorted(drawn()[20:])]])  # half of them


def test_random_orders_are_rarely_said_to_follow_anything() -> None:
    told = [
        bool(found([f"Item {number}: what is a {word}, by {date(number, '%d %b %Y')}?" for number, word in rows]))
        for seed in range(40)
        for rows in [list(zip(np.random.default_rng(seed).integers(1, 99, 40).tolist(), drawn(seed), strict=True))]
    ]
    # Of 40 at 1 %, three or more are seen once in 130 times.
    assert sum(told) <= 2
    assert set(CUES) == set(cues(drawn(), [np.arange(40)], np.random.default_rng(0)))
