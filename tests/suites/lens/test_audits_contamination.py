"""WT503: texts that were read are found, others are never called seen, and nothing is ever called clean."""

import functools
import math

import numpy as np
import pytest

import wheeltap as wt
from tests.contaminated import WINDOW, Letters, knows_marks, marked, subject, task, texts
from wheeltap.audits.claims import Hypothesis, Words
from wheeltap.audits.settle import settle
from wheeltap.core.records import Finding
from wheeltap.core.subject import Subject
from wheeltap.stats.evidence import NoEvidence
from wheeltap.stats.family import holm
from wheeltap.suites.lens.audits.contamination import (
    COMPLETION,
    ORDER,
    TITLES,
    VERSIONS,
    CopyScores,
    CopyTest,
    paired_auc,
)
from wheeltap.suites.lens.readings.contamination import Contamination
from wheeltap.suites.lens.sources.passages import task_of
from wheeltap.suites.lens.stats.exchangeability import order_test

pytest.importorskip("transformers")

ALPHA = 0.05
RUNS = 200
SETTINGS = {
    "window": WINDOW, "shards": 6, "shuffles": 5, "exposures": "1,30", "teaching_rate": 3e-3, "teaching_batch": 2,
}  # fmt: skip


@functools.cache
def report(*, seen: int, twins: bool = True) -> wt.Report:
    how = SETTINGS if twins else {**SETTINGS, "exposures": "1"}
    return wt.audit(subject(seen=seen), task(twins=twins), audits=[wt.AuditSpec(name="contamination", settings=how)])


def findings(made: wt.Report) -> dict[str, Finding]:
    return {one.title: one for one in made.record.findings if one.code == "WT503"}


def test_a_net_that_has_read_the_items() -> None:
    made = findings(report(seen=0))
    # A model may prefer published texts because the twins are worse English, and an order because it is that of a
    # story: only completion says "seen".
    for title, verdict in ((ORDER, "prefers order"), (VERSIONS, "prefers published")):
        assert (made[title].status, made[title].verdict, made[title].alarm) == ("found", verdict, True), made[title]
    assert made[COMPLETION].status in ("found", "inconclusive")
    aurocs = {one.name: one for one in made[VERSIONS].estimates}
    assert all((aurocs[f"AUROC of {name}"].value or 0.0) >= 0.95 for name in ("loss", "Min-K%++"))
    assert abs((aurocs["AUROC of words, no model"].value or 0.0) - 0.5) < 0.2


def test_a_net_that_has_read_others_is_not_called_clean() -> None:
    made, record = findings(report(seen=2)), report(seen=2).record
    assert [made[title].status for title in TITLES] == ["inconclusive"] * 3
    assert not any(one.alarm for one in made.values())
    # A copy that read them once is hardly seen, one that read them thirty times surely.
    [once, often] = made["What would have been found"].estimates
    assert once.value < 0.5 and often.value > 0.95 and once.name.startswith("taught once")
    assert once.low <= once.value <= once.high <= often.high and often.low >= once.low
    [control] = [one for one in record.controls if one.kind == "planted"]
    assert control.status == "passed"


def test_without_twins_the_order_is_all_there_is() -> None:
    made = findings(report(seen=0, twins=False))
    assert made[ORDER].status == "found"
    assert made[VERSIONS].status == made[COMPLETION].status == "not_applicable"


def asked_of(subject: Subject, items: list[str]) -> Finding:
    """What is found of the order of items without twins."""
    named = task_of([(text, None) for text in items], Letters(), name="items")
    asked = [wt.AuditSpec(name="contamination", settings={**SETTINGS, "exposures": "1"})]
    return findings(wt.audit(subject, named, audits=asked))[ORDER]


def test_an_order_that_the_form_tells_is_no_sign_of_memory() -> None:
    order = asked_of(knows_marks(), marked(seed=0))
    items = task_of([(text, None) for text in marked(seed=0)], Letters(), name="items")
    read = Contamination({"window": WINDOW, "shards": 6, "shuffles": 5}).read(knows_marks(), items, root=0, seed=0)
    assert order_test(read.values["order"][0], np.random.default_rng(0)).p < 0.001  # by itself it would be called seen
    assert order.status == "inconclusive" and not order.alarm


def test_an_order_without_other_items_to_compare_is_not_tested() -> None:
    """One template with one part of its own each: no new items of the same form can be made."""
    order = asked_of(subject(seen=0), [f"Say {text.replace(' ', '')}" for text in texts(seed=0)])
    assert (order.status, order.verdict, order.alarm) == ("inconclusive", "cannot tell", False)
    assert not order.estimates


def arrays(rng: np.random.Generator, *, items: int = 60, **world: float) -> CopyScores:
    """What a reading gives of a model that knows so much of the items' own texts, and of texts that differ in style.

    ``known`` shifts the loss of own texts in their standard deviations, ``styled`` that of words alone, and ``liked``
    how much the model minds that style; ``order`` shifts the given order, and ``meant`` that of the twins too.
    """
    style = rng.normal(world.get("styled", 0.0), 1.0, items)
    gaps = rng.normal(world.get("known", 0.0), 1.0, items) + world.get("liked", 0.0) * style
    words = np.stack([style, np.zeros(items)], axis=1)
    base = rng.normal(3.0, 0.5, items)
    orders = [rng.normal(size=(1, 6, 13)) for _ in range(2)]
    orders[0][..., 0] += world.get("order", 0.0) + world.get("meant", 0.0)
    orders[1][..., 0] += world.get("meant", 0.0)
    kept = np.where(rng.random((1, items, 2, 3)) < 0.05, 1.0, 0.3)
    return CopyScores(
        {
            "epochs": np.array([0]), "loss": np.stack([base, base + 0.1 * gaps], axis=1)[None], "words": words,
            "bytes": rng.integers(90, 110, (items, 2)), "kept": kept, "tail": np.full((items, 2, 3), 9),
            "order": orders[0], "order_twins": orders[1], "shard_tokens": np.full(6, 100),
        },
        0, root=int(rng.integers(2**31)),
    )  # fmt: skip


def found(copy: CopyScores) -> list[str]:
    """Titles that Holm's correction lets through."""
    several: list[CopyTest] = copy.shown()
    corrected = holm([one.effect.p for one in several])
    return [one.title for one, p in zip(several, corrected, strict=True) if p is not None and p <= ALPHA]


@pytest.mark.parametrize(
    ("what", "world"),
    [
        ("twins drawn alike", {}),
        ("twins reworded: words sort them, and the model less well", {"styled": 1.6, "liked": 1.0}),
        ("an order with a meaning", {"meant": 1.2}),
    ],
)
def test_clean_models_are_rarely_called_contaminated(what: str, world: dict[str, float]) -> None:
    rng = np.random.default_rng(0)
    called = [found(arrays(rng, **world)) for _ in range(RUNS)]
    share = float(np.mean([bool(one) for one in called]))
    # Of 200 runs at 5 %, more than 8.5 % are seen once in 40 times. What the means of losses alone would say is wrong.
    assert share <= 0.085, (what, share)


def test_an_order_that_new_items_gain_by_as_much_is_rarely_called_seen() -> None:
    """Both gain by 2.5 of their standard errors: what new items gain is known no better than what the items do."""
    rng, seen = np.random.default_rng(0), 0
    for _ in range(300):
        read = {**(copy := arrays(rng, meant=1.0)).read}
        read["order_fresh"] = read.pop("order_twins")
        seen += (CopyScores(read, 0, copy.root).order().effect.p or 0.0) <= ALPHA
    assert seen / 300 <= 0.075, seen


def test_twins_with_errors_are_no_sign_of_training() -> None:
    rng = np.random.default_rng(0)
    read = {**arrays(rng).read, "words": np.zeros((60, 2))}  # no word with an error was met before: all are ties
    read["loss"] = np.stack([np.full(60, 3.0), 3.3 + rng.random(60) / 10], axis=1)[None]
    letters = np.stack([np.zeros(60), -rng.random(60) - 0.01], axis=1)
    usual = CopyScores({**read, "letters": letters}, 0, 0)
    assert VERSIONS in found(CopyScores(read, 0, root=0)) and VERSIONS not in found(usual)
    [shown] = [one for one in usual.shown() if one.title == VERSIONS]
    # The interval of the gap leaves 0 out, and the test says nothing: then nothing leans.
    said = Finding(code="WT503", title=VERSIONS, status="found", subject="x", estimates=(shown.effect,), because="x")
    [settled] = settle(
        [Hypothesis(said, test=shown.effect, evidence=NoEvidence(), one_sided=True, words=Words("a", "b", "may a"))],
        alpha=0.05,
    )
    assert (shown.effect.low or 0.0) > 0.2 and settled.verdict == "cannot tell" and not settled.leaning


def test_what_is_known_is_found_and_the_power_says_how_often() -> None:
    for world in ({"known": 0.45}, {"order": 0.7}):
        rng = np.random.default_rng(1)
        predicted, seen = list[float](), list[bool]()
        for _ in range(60):
            copy = arrays(rng, **world)
            shown = {one.title: one for one in copy.shown()}[VERSIONS if "known" in world else ORDER]
            predicted.append(shown.power(ALPHA / 3, level=0.95).value or 0.0)
            seen.append((shown.effect.p or 0.0) <= ALPHA / 3)
        # One copy's effect scatters, so that its power is drawn to one half: held against the truth in the mean.
        assert abs(np.mean(predicted) - np.mean(seen)) < 0.15, (world, np.mean(predicted), np.mean(seen))
        assert 0.1 < np.mean(seen) < 0.95


def test_a_pair_counts_as_one_unit_of_an_auroc() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        item = rng.normal(size=80)
        own, twin = item + rng.normal(0.6, 0.7, 80), item + rng.normal(0.0, 0.7, 80)
        made = paired_auc(own, twin, name="x")
        truth = 0.6 / np.sqrt(2 * (1 + 0.49))
        covered += (made.low or 0.0) <= 0.5 * (1 + math.erf(truth / np.sqrt(2))) <= (made.high or 1.0)
    assert 0.92 <= covered / 400 <= 0.98
