"""The agreement task: balance, variety, and an answer key checked by rules that do not use the grammar's own."""

from collections import Counter
from itertools import product

from wheeltap.sources import agreement
from wheeltap.sources.agreement import Pair
from wheeltap.sources.grammar import (
    CONSTRUCTIONS,
    OPENERS_ANY,
    OPENERS_NOW,
    OPENERS_THEN,
    PEOPLE,
    PLACES,
    POSSESSIVES,
    THINGS,
)

NOUNS = (*PEOPLE, *THINGS, *PLACES)
SINGULAR, PLURAL = {noun.singular for noun in NOUNS}, {noun.plural for noun in NOUNS}
DETERMINERS = {"the", *POSSESSIVES}
FOR_SINGULARS = {"is", "was", "has"}
FOR_PLURALS = {"are", "were", "have"}


def number_by_rule(pair: Pair) -> str:
    """Number of the subject, read off the text: quantifier, "and" between noun phrases, else the first noun."""
    text = pair.context
    for opener in (*OPENERS_ANY, *OPENERS_NOW, *OPENERS_THEN):
        text = text.removeprefix(f"{opener}, ")
    told = text.lower().replace(",", " ,").split()
    if "of" in told[:4]:
        return "singular" if "one" in told[:4] or told[0] == "each" else "plural"
    nouns = [i for i, word in enumerate(told) if word in SINGULAR | PLURAL and is_noun(told, i)]
    if "and" in told and told[nouns[0] + 1] == "and" and told[nouns[0] + 2] in DETERMINERS:
        return "plural"
    return "singular" if told[nouns[0]] in SINGULAR else "plural"


def is_noun(told: list[str], at: int) -> bool:
    """After a determiner, or after a determiner and an adjective that no other noun follows ("patient", "cook")."""
    if at and told[at - 1] in DETERMINERS:
        return at + 1 == len(told) or told[at + 1] not in SINGULAR | PLURAL
    return at > 1 and told[at - 2] in DETERMINERS


def agrees(form: str) -> str:
    """Number of a verb form, by its spelling."""
    if form in FOR_SINGULARS or (form.endswith("s") and form not in FOR_PLURALS):
        return "singular"
    return "plural"


def test_the_key_is_right_by_an_independent_rule() -> None:
    for pair in agreement.pairs():
        assert number_by_rule(pair) == pair.number, pair
        assert agrees(pair.choices[pair.answer].strip()) == pair.number, pair
        assert agrees(pair.choices[1 - pair.answer].strip()) != pair.number, pair


def test_each_construction_is_balanced_in_number_and_place_of_the_answer() -> None:
    for pairs in (agreement.pairs(), agreement.scored(), agreement.pairs(seed=5)):
        cells = Counter((p.construction, p.number, p.answer) for p in pairs)
        assert set(cells) == set(product(CONSTRUCTIONS, ("singular", "plural"), (0, 1)))
        assert len(set(cells.values())) == 1
    assert len(agreement.pairs()) == 512 and len(agreement.scored()) == 224


def test_items_are_the_same_today_and_tomorrow() -> None:
    """Pinned: a changed item changes every key of every stored language trial."""
    assert [(p.context, p.choices, p.answer) for p in agreement.pairs()[:4]] == [
        ("In her opinion, your writer", (" was", " were"), 0),
        ("Perhaps unexpectedly, my loyal child beside the fences", (" was", " were"), 0),
        ("The artist near the orchards beside the stations", (" was", " were"), 0),
        ("Down by the river, the rusty chair that the queens own", (" lies", " lie"), 0),
    ]


def test_the_factors_say_what_they_should() -> None:
    pairs = agreement.scored()
    known = agreement.factors(pairs)
    said = {
        pair.context: tuple(int(known[name][at]) for name in ("number", "nearest", "opener"))
        for at, pair in enumerate(pairs)
    }
    assert said["The artist near the orchards beside the stations"] == (0, 1, 0)
    assert said["That night, my queens"] == (1, 1, 1)
    assert said["Only one of the statues"] == (0, 1, 0)
    assert said["On Sundays, her citizen and her thief"] == (1, 0, 1)
    assert said["Down by the river, the witch, in addition to the sailors,"] == (0, 1, 1)
    assert float(known["number"].double().mean()) == 0.5
