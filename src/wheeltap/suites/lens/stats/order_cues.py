"""Whether the order of some texts can be known from the texts themselves: from numbers, dates, the alphabet and so on.

Each feature of a text is tried in two or three ways: whether it rises or falls along the order, whether it does so from
one text to the next, and whether it moves by equal steps. Texts at the same distance may resemble each other. One
permutation test corrects for all of them.
"""

import datetime
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from typing import Final

import numpy as np
from numpy.typing import NDArray

from wheeltap.stats.crossed import FloatArray

CUES: Final[tuple[str, ...]] = ("numbers", "dates", "letters", "alphabetical order", "lengths", "similar neighbors")
"""What an order may follow; ``letters`` are labels such as A, B, C."""

SHOWN: Final = 0.01
"""The largest p-value at which an order is said to follow a cue."""

DRAWS: Final = 2_000
"""Permutations; the least p-value is one over one more."""

SLOTS: Final = 6
"""Words from either end of a text whose alphabetical order is looked at."""

LAGS: Final = 6
"""Distances at which texts may resemble each other: blocks have distance 1, a cycle of templates its length."""

Shard = NDArray[np.intp]
Feature = tuple[str, FloatArray]
"""A cue, and a number that it gives each text; NaN where a text has none."""

_COUNTED: Final = ("numbers", "dates", "letters")

_WORD: Final = re.compile(r"[^\W_]+")
_DIGITS: Final = re.compile(r"\d+(?:\.\d+)?")
_ROMAN: Final = re.compile(r"m{0,3}(cm|cd|d?c{0,3})(xc|xl|l?x{0,3})(ix|iv|v?i{0,3})")
_ROMANS: Final = {"i": 1, "v": 5, "x": 10, "l": 50, "c": 100, "d": 500, "m": 1000}
_WRITTEN_DATE: Final = re.compile(
    r"(?P<a>\d{1,4})?(?:st|nd|rd|th|\.|er|º)?\W{0,3}(?:of |de |di |van )?(?P<month>[^\W\d_]{3,10})\.?"
    r"(?:\W{0,3}(?:the |de |del )?(?P<b>\d{1,4})(?:st|nd|rd|th)?)?(?:\W{1,3}(?P<c>\d{4}))?"
)
_PLAIN_DATE: Final = re.compile(r"(?<!\d)(\d{1,4})([-/.])(\d{1,2})\2(\d{1,4})(?!\d)")

# First letters of the months in English, German, French, Spanish, Italian, Portuguese and Dutch.
_MONTHS: Final = (
    ("jan", "ene", "gen"), ("feb", "fév", "fev"), ("mar", "mär", "maa", "mrt"), ("apr", "avr", "abr"),
    ("may", "mai", "mag", "mei"), ("jun", "juin", "giu"), ("jul", "juil", "lug"), ("aug", "aoû", "ago"),
    ("sep", "set"), ("oct", "okt", "out", "ott"), ("nov",), ("dec", "dez", "déc", "dic"),
)  # fmt: skip
_DAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")

_ENGLISH: Final = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen",
    "zeroth first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth "
    "fifteenth sixteenth seventeenth eighteenth nineteenth",
)
_TENS: Final = (
    "twenty thirty forty fifty sixty seventy eighty ninety",
    "twentieth thirtieth fortieth fiftieth sixtieth seventieth eightieth ninetieth",
)
_OTHERS: Final = (
    "null eins zwei drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn vierzehn fünfzehn sechzehn siebzehn "
    "achtzehn neunzehn zwanzig",
    "zéro un deux trois quatre cinq six sept huit neuf dix onze douze treize quatorze quinze seize",
    "cero uno dos tres cuatro cinco seis siete ocho nueve diez once doce trece catorce quince dieciséis diecisiete "
    "dieciocho diecinueve veinte",
    "zero uno due tre quattro cinque sei sette otto nove dieci undici dodici tredici quattordici quindici sedici "
    "diciassette diciotto diciannove venti",
    "zero um dois três quatro cinco seis sete oito nove dez onze doze treze catorze quinze dezesseis dezessete "
    "dezoito dezenove vinte",
    "nul een twee drie vier vijf zes zeven acht negen tien elf twaalf dertien veertien vijftien zestien zeventien "
    "achttien negentien twintig",
)


_NUMBERS: Final = {
    **{word: at for line in (*_OTHERS, *_ENGLISH) for at, word in enumerate(line.split())},
    **{word: 10 * (at + 2) for line in _TENS for at, word in enumerate(line.split())},
}


def cues(texts: Sequence[str], shards: Sequence[Shard], rng: np.random.Generator) -> dict[str, float]:
    """For each of ``CUES`` the p-value that the order of texts follows it neither within shards nor across them.

    Corrected over all features of all cues by the largest statistic of each permutation (Westfall & Young, 1993), and
    for the two looks: the texts of a shard are permuted among themselves, then all texts.

    Args:
        texts: All of them.
        shards: Places of the texts of each shard, in the order that is tested.
        rng: Of the permutations.
    """
    used = np.concatenate(list(shards))
    features = [(cue, feature[used]) for cue, feature in _features(texts)]
    alike = [_alike(texts, used, parts) for parts in (_words, _trigrams)]
    ends = np.cumsum([len(shard) for shard in shards])
    places = np.arange(len(used))
    looks = [_look(features, alike, some, rng) for some in (np.split(places, ends[:-1]), [places])]
    return {cue: min(1.0, len(looks) * min(look[cue] for look in looks)) for cue in CUES}


def _look(
    features: Sequence[Feature], alike: Sequence[FloatArray], shards: Sequence[Shard], rng: np.random.Generator
) -> dict[str, float]:
    """The p-value of each cue, where texts are permuted within shards; places are among the texts of all shards."""
    orders = [rng.permuted(np.tile(np.arange(len(shard)), (1 + DRAWS, 1)), axis=1) for shard in shards]
    for order in orders:
        order[0] = np.arange(order.shape[1])
    seen: list[tuple[str, FloatArray]] = []
    for cue, feature in features:
        rows = [feature[shard] for shard in shards]
        steps = np.concatenate([np.diff(row[order], axis=1) for row, order in zip(rows, orders, strict=True)], axis=1)
        seen.append((cue, np.abs(sum((_trend(*both) for both in zip(rows, orders, strict=True)), np.zeros(1)))))
        # Rises less falls, from one text to the next: also where an order starts again.
        seen.append((cue, np.abs(np.nan_to_num(np.sign(steps)).sum(axis=1))))
        if cue in _COUNTED:
            seen.append((cue, _equal_steps(steps)))
    for likeness in alike:
        near = [likeness[np.ix_(shard, shard)] for shard in shards]
        for lag in range(1, 1 + min(LAGS, max(map(len, shards)) - 1)):
            sums = (shard[order[:, :-lag], order[:, lag:]].sum(1) for shard, order in zip(near, orders, strict=True))
            seen.append((CUES[-1], sum(sums, np.zeros(1))))  # of the likeness of texts at a distance
    scores = np.array([_standardized(statistic) for _, statistic in seen])
    largest = scores.max(axis=0)
    found: dict[str, float] = {str(cue): 1.0 for cue in CUES}
    for (cue, _), row in zip(seen, scores, strict=True):
        found[cue] = min(found[cue], float((largest >= row[0] - 1e-9).sum()) / len(largest))
    return found


def _standardized(statistic: FloatArray) -> FloatArray:
    spread = float(statistic.std())
    return (statistic - statistic.mean()) / spread if spread > 1e-9 else np.zeros_like(statistic)


def _trend(row: FloatArray, order: Shard) -> FloatArray:
    """Covariance of rank and place under each permutation ``[draw, place]``; what is missing (NaN) has no rank."""
    known = np.isfinite(row)
    some = np.sort(row[known])
    ranks = np.zeros(len(row))
    ranks[known] = np.searchsorted(some, row[known], "left") + np.searchsorted(some, row[known], "right")
    ranks[known] -= ranks[known].mean() if known.any() else 0.0
    return np.asarray(ranks[order] @ (np.arange(len(row)) - (len(row) - 1) / 2.0), dtype=np.float64)


def _equal_steps(steps: FloatArray) -> FloatArray:
    """How many steps from a text to the next repeat another one, ``[draw, step]``; steps of 0 do not count."""
    ordered = np.sort(np.where(steps == 0.0, np.nan, steps), axis=1)
    return np.asarray((np.diff(ordered, axis=1) == 0.0).sum(axis=1), dtype=np.float64)


def _alike(texts: Sequence[str], used: Shard, parts: Callable[[str], list[str]]) -> FloatArray:
    """Cosine of the parts that two used texts have in common, those rare in all texts weighing more, ``[used, used]``.

    A benchmark may have many thousands of texts, of which a few hundred are used.
    """
    several = [set(parts(text)) for text in texts]
    counts = Counter(part for each in several for part in each)
    held = [several[int(at)] for at in used]
    places = {part: at for at, part in enumerate(sorted({part for each in held for part in each}))}
    table = np.zeros((len(used), len(places)))
    for row, each in enumerate(held):
        for part in each:
            table[row, places[part]] = np.log(len(texts) / counts[part])
    table /= np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-12)
    return np.asarray(table @ table.T, dtype=np.float64)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _trigrams(text: str) -> list[str]:
    return [text[at : at + 3] for at in range(len(text) - 2)]


def _features(texts: Sequence[str]) -> Iterator[Feature]:
    """What texts differ in, ``[text]`` each."""
    kinds: tuple[tuple[str, Callable[[str], list[float]]], ...] = (
        ("numbers", _digits), ("numbers", _numerals), ("numbers", _roman), ("numbers", _spelled),
        ("dates", _plain_dates), ("dates", _written_dates),
        ("dates", _weekdays),
        ("letters", _labels),
    )  # fmt: skip
    for cue, parsed in kinds:
        several = [parsed(text) for text in texts]
        for slot in (0, 1, 2, -1):
            yield from _known(cue, [each[slot] if -len(each) <= slot < len(each) else np.nan for each in several])
    words = [_words(text) for text in texts]
    counts = Counter(word for each in words for word in set(each))
    rarest = [min(each, key=lambda word: counts[word], default=None) for each in words]
    keys: list[list[str | None]] = [[text.casefold() for text in texts], [text.casefold()[::-1] for text in texts]]
    for slot in (*range(SLOTS), *range(-SLOTS, 0)):
        keys.append([each[slot] if -len(each) <= slot < len(each) else None for each in words])
    for several in (*keys, rarest):
        ranks = {key: float(at) for at, key in enumerate(sorted({key for key in several if key is not None}))}
        yield from _known("alphabetical order", [np.nan if one is None else ranks[one] for one in several])
    sizes = (
        [len(text) for text in texts], [len(each) for each in words], [len(one or "") for one in rarest],
        [max(map(len, each), default=0) for each in words], [text.count("\n") for text in texts],
        *([len(each[end]) if each else 0 for each in words] for end in (0, -1)),
        *([sum(map(of_kind, text)) for text in texts] for of_kind in (str.isupper, str.isdigit)),
        [sum(not sign.isalnum() and not sign.isspace() for sign in text) for text in texts],
    )  # fmt: skip
    for lengths in sizes:
        yield from _known("lengths", [float(length) for length in lengths])


def _known(cue: str, values: Sequence[float]) -> Iterator[Feature]:
    """A feature that two texts at least have, and not all alike."""
    array = np.array(values, dtype=np.float64)
    if len(np.unique(array[np.isfinite(array)])) > 1:
        yield cue, array


def _digits(text: str) -> list[float]:
    """Numbers in decimal digits of any script; of more than 15 digits, none."""
    return [float(found) for found in _DIGITS.findall(text) if len(found) <= 15]


def _numerals(text: str) -> list[float]:
    """Numerals that are no decimal digits, such as those of Chinese or in circles; tens and hundreds multiply."""
    found, total, unit, inside = list[float](), 0.0, 0.0, False
    for sign in (*text, " "):
        value = None if sign.isdecimal() else unicodedata.numeric(sign, None)
        if value is None:
            found += [total + unit] if inside else []
            total, unit, inside = 0.0, 0.0, False
        elif value in (10.0, 100.0, 1000.0):
            total, unit, inside = total + (unit or 1.0) * value, 0.0, True
        else:
            unit, inside = 10.0 * unit + value if inside and unit else value, True
    return found


def _roman(text: str) -> list[float]:
    words = [word.lower() for word in _WORD.findall(text) if word.isupper() or word.islower()]
    several = [[_ROMANS[letter] for letter in word] for word in words if _ROMAN.fullmatch(word)]
    return [float(sum(one if one >= after else -one for one, after in zip(values, (*values[1:], 0), strict=True)))
            for values in several]  # fmt: skip


def _spelled(text: str) -> list[float]:
    """Numbers in words; "one hundred twenty-one" is one number."""
    found, held = list[float](), list[int]()
    for word in (*_words(text), ""):
        value = 100 if word in ("hundred", "hundredth") else _NUMBERS.get(word)
        if value is None and not (held and word == "and"):
            found += [float(reduce(lambda one, two: one * two if two == 100 else one + two, held))] if held else []
            held = []
        elif value is not None:
            held.append(value)
    return found


def _labels(text: str) -> list[float]:
    return [float(ord(word.lower())) for word in _WORD.findall(text) if len(word) == 1 and word.isalpha()]


def _weekdays(text: str) -> list[float]:
    return [float(_DAYS.index(word)) for word in _words(text) if word in _DAYS]


def _plain_dates(text: str) -> list[float]:
    """Dates in digits, in days: years first, else days first where that is a date, else months first."""
    found = list[float]()
    for one, _, two, three in _PLAIN_DATE.findall(text):
        a, b, c = int(one), int(two), int(three)
        found += [day for tried in ((a, b, c), (c, b, a), (c, a, b)) if (day := _day(*tried))][:1]
    return found


def _written_dates(text: str) -> list[float]:
    """Dates with the name of a month, in days; what is not said of day or year is 1."""
    found = list[float]()
    for match in _WRITTEN_DATE.finditer(text.casefold()):
        month = next((at + 1 for at, names in enumerate(_MONTHS) if match["month"].startswith(names)), None)
        numbers = [int(match[name]) for name in "abc" if match[name]]
        year = next((number for number in numbers if number > 31), 1)
        day = next((number for number in numbers if number <= 31), 1)
        found += [] if month is None else [_day(year, month, day) or _day(year, month, 1)]
    return found


def _day(year: int, month: int, day: int) -> float:
    """Days since the year 1; 0 where there is no such date."""
    try:
        return float(datetime.date(year, month, day).toordinal())
    except ValueError:
        return 0.0
