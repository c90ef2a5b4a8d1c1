"""Tasks that people have, through the doors: F1, several labels, rankings, boxes, measures of one's own."""

import pytest
import torch
from sklearn import metrics
from torch import Tensor, nn

import wheeltap as wt
from tests.doors.by_hand import drawn, linear, verdicts
from wheeltap.core.errors import DataError, UsageError


def rare(examples: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """One example in ten is of class 1; what tells it lies in a large weight and, by half, in small ones."""
    targets = (torch.rand(examples, generator=torch.Generator().manual_seed(seed)) < 0.1).long()
    inputs = drawn(examples, 6, seed=seed + 1)
    inputs[:, :3] += 2.0 * targets[:, None]
    return inputs, targets


DETECTOR = linear(torch.tensor([[0.0] * 6, [1.0, 1.0, 1.0, 3.0, -3.0, 3.0]]), torch.tensor([0.0, -4.0]))
"""Its three largest weights are noise, and its smallest ones all that it knows: pruning leaves nothing."""


def test_a_statistic_of_all_examples_is_scored_and_its_loss_judged() -> None:
    inputs, targets = rare(4000, seed=0)
    inputs[:, 3:] *= 0.1
    report = wt.audit(DETECTOR, (inputs, targets), measure="f1", audits="score", schemes="int8,prune75")
    score = report["WT001"][0].estimates[0]
    answers = DETECTOR(inputs).detach()
    by = metrics.f1_score(targets, answers.argmax(1))
    assert score.value == pytest.approx(by, abs=1e-6) and score.low is not None and 0.0 < score.low < by
    assert report.record.task.in_points and not report.record.task.bounded
    assert verdicts(report) == {"int8": "safe", "prune75": "costs"}
    row = report["WT100"][1].estimates[0]
    pruned = linear(DETECTOR.weight.detach() * torch.tensor([[0.0] * 3 + [1.0] * 3]), DETECTOR.bias.detach())(inputs)
    left = metrics.f1_score(targets, pruned.argmax(1))
    assert row.value == pytest.approx(by - left, abs=1e-5), "the loss is the difference of both statistics"
    changed = [one for one in report["WT100"][0].estimates if one.name == "answers changed"]
    assert changed and 0.0 <= (changed[0].value or 0.0) < 0.02, "answers are counted as ever"


def test_few_examples_of_a_class_are_too_few_to_say() -> None:
    inputs, targets = rare(150, seed=0)
    inputs[:, 3:] *= 0.1
    report = wt.audit(DETECTOR, (inputs, targets), measure="f1", audits="score", schemes="int8")
    assert report.headline.startswith("TOO FEW EXAMPLES")
    assert not report.passed and {row.status for row in report["WT100"]} == {"not_applicable"}
    with pytest.raises(DataError, match="all of one class"):
        wt.audit(DETECTOR, (inputs, targets * 0), measure="auc", schemes="int8")


def test_several_labels_are_recognized_and_named() -> None:
    inputs = drawn(600, 4)
    labels = inputs > 0.3
    net = linear(20.0 * torch.eye(4), -6.0 * torch.ones(4))
    for targets in (labels, labels.float()):
        report = wt.audit(net, (inputs, targets), audits="score", schemes="int8")
        assert report.record.task.measure == "label_accuracy"
    report = wt.audit(net, (inputs, labels), measure="macro_f1", audits="score", schemes="int8")
    assert report["WT001"][0].estimates[0].value == pytest.approx(1.0) and verdicts(report)["int8"] == "safe"
    with pytest.raises(UsageError, match="does not fit these targets"):
        wt.audit(net, (inputs, labels), measure="f1")


# ---- rankings -----------------------------------------------------------------------------------------------------


class TwoTowers(nn.Module):
    """Queries and documents, each through a map of its own."""

    def __init__(self, documents: Tensor) -> None:
        super().__init__()
        self.query, self.document = linear(torch.eye(8)), linear(torch.eye(8))
        self.documents = nn.Parameter(documents)

    def forward(self, queries: Tensor) -> Tensor:
        return self.query(queries) @ self.document(self.documents).T


def test_the_pool_of_a_ranking_is_data_and_no_weights() -> None:
    documents, right = drawn(60, 8, seed=1), torch.arange(300) % 60
    inputs = documents[right] + 0.3 * drawn(300, 8, seed=2)
    subject = wt.Subject(TwoTowers(documents).eval(), name="towers", data="documents")
    report = wt.audit(subject, (inputs, right), measure="recall@3", audits="score", schemes="int8,prune50")
    record = report.record.subjects[0]
    assert record.parameters == 2 * 64 and record.weights == ("query.weight", "document.weight")
    top = (inputs @ documents.T).topk(3).indices
    by_hand = float((top == right[:, None]).any(1).double().mean())
    assert report["WT001"][0].estimates[0].value == pytest.approx(by_hand) and verdicts(report)["int8"] == "safe"
    with pytest.raises(DataError, match="no more than 60 documents"):
        wt.audit(subject, (inputs, right), measure="recall@60")
    with pytest.raises(UsageError, match="no such data"):
        wt.Subject(TwoTowers(documents).eval(), data="pool")


# ---- measures of one's own ------------------------------------------------------------------------------------------


def found_boxes(scores: Tensor, targets: Tensor) -> Tensor:
    """Whether the box (left, top, right, bottom) overlaps the wanted one by half: of one object an image, its AP."""
    low, high = torch.maximum(scores[:, :2], targets[:, :2]), torch.minimum(scores[:, 2:], targets[:, 2:])
    both = (high - low).clamp_min(0).prod(1)
    area = sum((box[:, 2:] - box[:, :2]).clamp_min(0).prod(1) for box in (scores, targets))
    return (both / (area - both).clamp_min(1e-9) > 0.5).float()


def test_a_function_of_scores_and_targets_is_a_measure() -> None:
    corners = torch.rand(300, 2, generator=torch.Generator().manual_seed(3))
    boxes = torch.cat([corners, corners + 0.5], 1)
    net, inputs = linear(torch.eye(4)), boxes + 0.02 * drawn(300, 4, seed=4)
    mine = wt.measure.of(found_boxes, bounded=True)
    for report in (
        wt.audit(net, wt.Task(inputs, boxes, measure=mine), audits="score", schemes="int8,prune50"),
        wt.audit(net, (inputs, boxes), measure=mine, audits="score", schemes="int8,prune50"),
    ):
        assert report.record.task.measure == "found_boxes" and verdicts(report)["int8"] == "safe"
        assert report["WT001"][0].estimates[0].value == pytest.approx(float(found_boxes(net(inputs), boxes).mean()))
    other = wt.measure.of(lambda scores, targets: found_boxes(scores, targets) * 0.5, name="found_boxes")
    assert other.identity != mine.identity, "its code is part of every key"
