"""Measures beside scikit-learn and slow second implementations: equal to 1e-12."""

import math
from collections.abc import Callable
from itertools import pairwise, permutations
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics
from torch import Tensor

from wheeltap.core import measure
from wheeltap.core.errors import DataError, UsageError
from wheeltap.core.measure import LinearStatistic, Measure, named
from wheeltap.core.targets import require_fitting

EXACT = {"rel": 1e-12, "abs": 1e-12}


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def classes(examples: int, options: int, *, seed: int) -> tuple[Tensor, Tensor]:
    targets = torch.randint(0, options, (examples,), generator=torch.Generator().manual_seed(seed))
    return drawn(examples, options, seed=seed) + 1.5 * torch.eye(options, dtype=torch.float64)[targets], targets


def by_sklearn(name: str, scores: Tensor, targets: Tensor) -> float:
    said, true, two = scores.argmax(1).numpy(), targets.numpy(), scores.shape[1] == 2
    some = {"labels": [1] if two and name != "macro_f1" else np.unique(true), "average": "macro", "zero_division": 0}
    match name:
        case "f1" | "macro_f1":
            return float(metrics.f1_score(true, said, **some))
        case "precision":
            return float(metrics.precision_score(true, said, **some))
        case "recall":
            return float(metrics.recall_score(true, said, **some))
        case "balanced_accuracy":
            return float(metrics.balanced_accuracy_score(true, said))
        case "mcc":
            return float(metrics.matthews_corrcoef(true, said))
        case _:
            return float(metrics.roc_auc_score(true, (scores[:, 1] - scores[:, 0]).numpy()))


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@given(examples=st.integers(6, 60), options=st.integers(2, 5), seed=st.integers(0, 10**6), coarse=st.booleans())
@settings(max_examples=20)
def test_statistics_of_classes_are_those_of_scikit_learn(examples: int, options: int, seed: int, coarse: bool) -> None:
    scores, targets = classes(examples, options, seed=seed)
    scores = scores.round() if coarse else scores
    targets[:2] = torch.tensor([0, 1])
    for name in ("f1", "macro_f1", "precision", "recall", "balanced_accuracy", "mcc", "auc"):
        if name == "auc" and options > 2:
            continue
        found = named(name, where="")(scores, targets, scores)
        assert found.shape == (examples,)
        assert float(found.mean()) == pytest.approx(by_sklearn(name, scores, targets), **EXACT), name


@given(examples=st.integers(2, 40), labels=st.integers(2, 5), seed=st.integers(0, 10**6))
@settings(max_examples=15)
def test_statistics_of_labels_are_those_of_scikit_learn(examples: int, labels: int, seed: int) -> None:
    scores, targets = drawn(examples, labels, seed=seed), (drawn(examples, labels, seed=seed + 1) > 0.4).double()
    targets[0, 0], scores[0, 0] = 1.0, -1.0  # logits, not probabilities
    said, true = (scores > 0).numpy(), targets.numpy().astype(bool)
    some = np.flatnonzero(true.any(0))
    wanted = {
        "macro_f1": metrics.f1_score(true, said, labels=some, average="macro", zero_division=0),
        "micro_f1": metrics.f1_score(true, said, average="micro", zero_division=0),
        "exact_labels": metrics.accuracy_score(true, said), "label_accuracy": 1.0 - metrics.hamming_loss(true, said),
    }  # fmt: skip
    for name, value in wanted.items():
        one = named(name, where="")
        near = EXACT if isinstance(one, LinearStatistic) else {"abs": 1e-6}  # a mean of single-precision shares
        assert float(one(scores, targets, scores).mean()) == pytest.approx(float(value), **near), name


def test_influence_is_what_one_more_copy_of_an_example_does() -> None:
    """Against finite differences: the statistic of a sample in which one example has a little more weight."""
    scores, targets = classes(40, 3, seed=3)
    labels = (drawn(40, 3, seed=4) > 0.4).double()
    cases = [(name, scores, targets) for name in ("f1", "precision", "recall", "balanced_accuracy", "mcc")]
    cases += [("auc", scores[:, :2], targets.clamp(max=1)), ("macro_f1", scores, labels), ("micro_f1", scores, labels)]
    copies = 2000
    for name, given_scores, given_targets in cases:
        one = named(name, where="")
        values = one(given_scores, given_targets, given_scores)
        for at in (0, 7, 23):
            index = torch.cat([torch.arange(40).repeat(copies), torch.tensor([at])])
            moved = one(given_scores[index], given_targets[index], given_scores[index]).mean() - values.mean()
            assert float(moved * (40 * copies + 1)) == pytest.approx(float(values[at] - values.mean()), abs=2e-3), name


def test_chance_is_what_shuffled_answers_get() -> None:
    scores, targets = classes(300, 3, seed=5)
    order = np.random.default_rng(0)
    for name in ("f1", "precision", "recall", "balanced_accuracy", "mcc"):
        one = named(name, where="")
        some = [
            float(one(mixed, targets, mixed).mean()) for mixed in (scores[order.permutation(300)] for _ in range(100))
        ]
        assert np.mean(some) == pytest.approx(one.chance(scores, targets), abs=4 * np.std(some) / 10), name


# ---- masks --------------------------------------------------------------------------------------------------------


def slow_iou(answers: Tensor, wanted: Tensor, options: int) -> float:
    shares = []
    for one in range(1, 2) if options == 1 else range(options):
        mine = {at for at, value in enumerate(answers.flatten().tolist()) if value == one}
        right = {at for at, value in enumerate(wanted.flatten().tolist()) if value == one}
        if mine | right:
            shares.append(len(mine & right) / len(mine | right))
    return sum(shares) / len(shares) if shares else 1.0


@pytest.mark.parametrize("options", [1, 4])
def test_masks_are_counted_image_by_image(options: int) -> None:
    scores = drawn(12, options, 5, 6, seed=options)
    targets = torch.randint(0, max(options, 2), (12, 5, 6), generator=torch.Generator().manual_seed(1)).float()
    targets[:2], scores[0] = 0.0, -1.0  # an empty mask that is left empty, and one that is not
    answers = (scores[:, 0] > 0).long() if options == 1 else scores.argmax(1)
    flat = scores.flatten(1)
    found, right = (one(flat, targets, flat) for one in (measure.iou, measure.pixel_accuracy))
    for at in range(12):
        assert float(found[at]) == pytest.approx(slow_iou(answers[at], targets[at], options), **EXACT)
        assert float(right[at]) == pytest.approx(float((answers[at] == targets[at]).double().mean()), abs=1e-7)
    if options == 1:
        assert float(found[0]) == 1.0 and float(found[1]) == 0.0


def test_marked_pixels_are_left_out_of_masks() -> None:
    scores, targets = drawn(3, 2, 4, 4).flatten(1), torch.zeros(3, 4, 4)
    marked = targets.clone()
    marked[:, 0] = 255.0
    marked[2] = -1.0
    answers = scores.unflatten(1, (2, 4, 4)).argmax(1)
    assert float(measure.pixel_accuracy(scores, marked, scores)[0]) == pytest.approx(
        float((answers[0, 1:] == 0).double().mean())
    )
    unmarked = [one(scores, marked, scores)[2] for one in (measure.pixel_accuracy, measure.iou)]
    assert bool(torch.stack(unmarked).isnan().all()), "an image without a class anywhere has no value, and is no hit"


@pytest.mark.parametrize(("marks", "got"), [((0.0, 7.0), "7"), ((0.0, 255.0), "0 and 255 alone")])
def test_masks_of_other_classes_than_the_models_are_refused(marks: tuple[float, float], got: str) -> None:
    """Of images that store the foreground as 255, all of it would count as left out."""
    masks = torch.tensor(marks).repeat(8).reshape(2, 2, 4)
    with pytest.raises(DataError, match="not of the model's classes") as caught:
        require_fitting(masks, 8, where="task")
    assert caught.value.got.startswith(got)
    require_fitting(torch.tensor([0.0, 1.0, 255.0, -1.0]).reshape(1, 2, 2), 4, where="task")


# ---- rankings -----------------------------------------------------------------------------------------------------


def in_every_order(one: Measure, row: list[float], relevant: list[float]) -> float:
    """The mean over all orders of equal scores, of formulas by hand."""
    values = []
    for order in permutations(range(len(row))):
        if any(row[a] < row[b] for a, b in pairwise(order)):
            continue
        gains = [relevant[at] for at in order]
        if one.name == "mrr":
            values.append(1.0 / (1 + next(at for at, gain in enumerate(gains) if gain > 0)))
        elif one.name.startswith("recall"):
            k = int(one.name.partition("@")[2])
            values.append(sum(gain > 0 for gain in gains[:k]) / sum(gain > 0 for gain in gains))
        else:
            k = int(one.name.partition("@")[2])
            best = sorted(relevant, reverse=True)
            dcg, ideal = (sum(g / math.log2(at + 2) for at, g in enumerate(some[:k])) for some in (gains, best))
            values.append(dcg / ideal)
    return sum(values) / len(values)


@given(seed=st.integers(0, 10**6), name=st.sampled_from(["mrr", "recall@2", "ndcg@3", "recall@1"]))
@settings(max_examples=25)
def test_rankings_with_ties_are_means_over_all_orders(seed: int, name: str) -> None:
    one, generator = named(name, where=""), torch.Generator().manual_seed(seed)
    scores = torch.randint(0, 4, (4, 5), generator=generator).double()
    relevance = torch.randint(0, 3, (4, 5), generator=generator).double()
    relevance[:, 0] = 1.0
    found = one(scores, relevance, scores)
    for row, relevant, value in zip(scores.tolist(), relevance.tolist(), found.tolist(), strict=True):
        assert value == pytest.approx(in_every_order(one, row, relevant), **EXACT)


def test_rankings_are_those_of_scikit_learn() -> None:
    scores, relevance = (
        drawn(30, 20),
        torch.randint(0, 4, (30, 20), generator=torch.Generator().manual_seed(2)).double(),
    )
    relevance[:, 3] = 1.0
    found = measure.NDCG(5)(scores, relevance, scores)
    each = [metrics.ndcg_score(relevance[at : at + 1], scores[at : at + 1], k=5) for at in range(30)]
    assert found.tolist() == pytest.approx(each, **EXACT)
    right = torch.arange(30) % 20
    whole = metrics.label_ranking_average_precision_score(torch.eye(20)[right].numpy(), scores.numpy())
    assert float(measure.mrr(scores, right, scores).mean()) == pytest.approx(whole, **EXACT)
    top = metrics.top_k_accuracy_score(right, scores, k=5, labels=range(20))
    assert float(measure.RecallAt(5)(scores, right, scores).mean()) == pytest.approx(top, **EXACT)
    assert bool(measure.mrr(scores, torch.zeros(30, 20), scores).isnan().all()), "no document is relevant"


def test_statistics_that_there_are_not_are_errors() -> None:
    scores, ones = drawn(8, 2), torch.ones(8, dtype=torch.long)
    for name in ("auc", "mcc"):
        with pytest.raises(DataError, match="all of one class"):
            named(name, where="")(scores, ones, scores)
    with pytest.raises(DataError, match="no example to measure f1"):
        measure.f1(scores, 1 - ones, scores)
    with pytest.raises(DataError, match="two classes"):
        measure.auc(drawn(8, 3), ones, scores)
    with pytest.raises(DataError, match="no more than 10 documents"):
        measure.RecallAt(10)(drawn(8, 10), ones, scores)
    with pytest.raises(UsageError, match="whole number from 1 on"):
        named("recall@0", where="")
    assert named("ndcg@3", where="").name == "ndcg@3"


def matched(scores: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Detections as they are given: confidence and hit of each, and how many objects there are."""
    pairs = scores.reshape(len(scores), -1, 2)
    return pairs[..., 0], pairs[..., 1], targets[:, 0]


def detections(examples: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """Confidences with ties, images without an object or a detection."""
    g = torch.Generator().manual_seed(seed)
    wanted = torch.randint(0, 4, (examples, 1), generator=g).double()
    hits = (torch.arange(5) < (wanted - torch.randint(0, 2, (examples, 1), generator=g))).double()
    confidence = ((torch.rand(examples, 5, generator=g) + 0.4 * hits) * 20).round().double()
    confidence[torch.rand(examples, 5, generator=g) < 0.2] = torch.nan
    hits[confidence.isnan()] = 0.0
    return torch.stack([confidence, hits], 2).flatten(1), wanted


def weighed(scores: Tensor, targets: Tensor, weights: list[float]) -> float:
    """Average precision with a weight for each example, detection by detection."""
    rows = [(c, h, w) for one, w in zip(scores.reshape(len(scores), -1, 2).tolist(), weights, strict=True)
            for c, h in one if not math.isnan(c)]  # fmt: skip
    total = 0.0
    for confidence, hit, weight in rows:
        above = [(h, w) for c, h, w in rows if c >= confidence]
        total += weight * hit * sum(h * w for h, w in above) / sum(w for _, w in above)
    return total / sum(float(one) * w for one, w in zip(targets[:, 0], weights, strict=True))


def test_average_precision_is_that_of_sklearn_and_its_values_are_derivatives() -> None:
    one = measure.average_precision(matched)
    scores, targets = detections(40, seed=0)
    values, (confidence, hits, _) = one(scores, targets, scores), matched(scores, targets)
    there = ~confidence.isnan()
    found = metrics.average_precision_score(hits[there].numpy(), confidence[there].numpy())
    assert float(values.mean()) == pytest.approx(found * float(hits.sum() / targets.sum()), **EXACT)
    for at in range(40):
        up, down = ([1.0 + sign * 1e-5 * (row == at) for row in range(40)] for sign in (1, -1))
        slope = (weighed(scores, targets, up) - weighed(scores, targets, down)) / 2e-5
        assert float(values[at] - values.mean()) == pytest.approx(40 * slope, abs=1e-6)


@pytest.mark.parametrize("given", [
    lambda s, t: (s, s), lambda s, t: (s, torch.full_like(s, 0.5), t[:, 0]),
])  # fmt: skip
def test_what_is_no_match_is_refused(given: Callable[[Tensor, Tensor], Any]) -> None:
    scores, targets = torch.rand(6, 4), torch.ones(6, 1)
    with pytest.raises(UsageError, match="matched detections"):
        measure.average_precision(given, name="mine")(scores, targets, scores)


def test_nothing_to_detect() -> None:
    scores, targets = detections(10, seed=0)
    scores[:, 1::2] = 0.0
    with pytest.raises(DataError, match="nothing to detect"):
        measure.average_precision(matched)(scores, 0.0 * targets, scores)
    scores[:, ::2] = torch.nan
    assert measure.average_precision(matched)(scores, targets, scores).tolist() == [0.0] * 10
