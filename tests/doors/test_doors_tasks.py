"""Tasks that were misread: errors without a bound, rare classes, labels, probabilities, repeats, measures that fail."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import wheeltap as wt
from tests.doors.by_hand import drawn, linear, verdicts
from wheeltap.core.errors import DataError, WheeltapError
from wheeltap.core.measure import Measure, label_accuracy, nll
from wheeltap.core.repeats import copies

# ---- errors without a bound -----------------------------------------------------------------------------------


def sensor(noise: float, examples: int = 600) -> tuple[nn.Linear, tuple[Tensor, Tensor]]:
    """A linear net and targets that it misses by this much."""
    net, inputs = linear(drawn(3, 6, seed=1)), drawn(examples, 6, seed=2)
    return net, (inputs, net(inputs).detach() + noise * drawn(examples, 3, seed=3))


def test_an_error_that_grows_many_times_is_not_safe() -> None:
    net, (inputs, targets) = sensor(0.05)
    report = wt.audit(net, (inputs, targets), audits="score", schemes="int8,int4")
    before = (net(inputs) - targets).square().sum(1).detach()
    step = net.weight.detach().abs().amax(1, keepdim=True) / 7.0
    rounded = (net.weight.detach() / step).round() * step
    after = (inputs @ rounded.T - targets).square().sum(1)
    row = next(row for row in report["WT100"] if row.scheme == "int4")
    grown = next(one for one in row.estimates if one.name == "times the undisturbed error")
    times = float(after.mean() / before.mean())
    assert times > 10.0 and grown.value == pytest.approx(times, rel=1e-4)
    assert grown.low is not None and grown.high is not None and grown.low < times < grown.high
    assert row.verdict == "costs" and row.margin == pytest.approx(0.1 * float(before.mean()), rel=1e-4)
    assert verdicts(report)["int8"] == "safe"
    assert not report.void


def test_where_there_is_no_error_the_margin_is_of_the_way_from_chance() -> None:
    net, (inputs, targets) = sensor(0.0)
    report = wt.audit(net, (inputs, targets), audits="score", schemes="int8,int2")
    chance = float((targets - targets.mean(0)).square().sum(1).mean())
    assert report["WT100"][0].margin == pytest.approx(0.02 * chance, rel=1e-3) and not report.void
    assert verdicts(report) == {"int8": "safe", "int2": "costs"}


# ---- rare classes -----------------------------------------------------------------------------------------------


def test_a_net_that_becomes_the_most_common_answer_is_not_safe() -> None:
    """It knows a class of 1.5 % by its smallest weight alone."""
    targets = (torch.arange(3000) % 67 == 0).long()
    inputs = 0.1 * drawn(3000, 4)
    inputs[:, 2] = targets.float()
    net = linear(torch.tensor([[9.0, 9.0, 0.0, 0.0], [9.0, 9.0, 1.0, 0.0]]), torch.tensor([0.5, 0.0]))
    report = wt.audit(net, (inputs, targets), audits="score", schemes="int8,prune50")
    assert verdicts(report) == {"int8": "safe", "prune50": "costs"} and not report.passed
    row = next(row for row in report["WT100"] if row.scheme == "prune50")
    assert row.estimates[0].value is not None and 0.01 < row.estimates[0].value < 0.02, "less than two points"


class Absolute(Measure):
    """Mean absolute error: a measure of one's own."""

    name = "absolute"
    higher_is_better = False

    def __call__(self, scores: Tensor, targets: Tensor, clean: Tensor) -> Tensor:
        return (scores - targets).abs().mean(-1)


@pytest.mark.parametrize("measure", [Absolute(), "nll"])
def test_a_net_that_knows_little_is_not_safe_where_it_becomes_a_constant(measure: str | Measure) -> None:
    inputs = drawn(3000, 2)
    inputs[:, 1] = 0.0  # so that the smallest weight is all that it knows
    if measure == "nll":
        targets = (torch.rand(3000, generator=torch.Generator().manual_seed(1)) < (inputs[:, 0] - 3.0).sigmoid()).long()
        net = linear(torch.tensor([[0.0, 9.0], [1.0, 9.0]]), torch.tensor([3.0, 0.0]))
    else:
        targets = 0.3 * inputs[:, :1] + drawn(3000, 1, seed=1) + 100.0
        net = linear(torch.tensor([[0.3, 9.0]]), torch.tensor([100.0]))
    report = wt.audit(net, wt.Task(inputs, targets, measure=measure), audits="score", schemes="int8,prune50")
    assert verdicts(report)["prune50"] in ("costs", "may cost"), "all that it knows is less than a tenth of its error"


# ---- what is no better than chance ------------------------------------------------------------------------------


def test_one_or_two_examples_are_too_few_to_say() -> None:
    for examples in (1, 2):
        targets = torch.arange(examples) % 4
        report = wt.audit(linear(torch.eye(4)), (torch.eye(4)[targets], targets), schemes="int8")
        score = report["WT001"][0]
        assert report.headline.startswith("TOO FEW EXAMPLES") and not report.passed
        assert (score.status, score.verdict) == ("inconclusive", "too few examples")
    single = linear(torch.eye(3)), (torch.ones(1, 3), torch.ones(1, 3) + 0.1)
    for net, data in (single, sensor(0.05, examples=2)):
        assert verdicts(wt.audit(net, data, audits="score", schemes="int8")) == {"int8": "cannot tell"}


def test_a_net_that_gives_one_answer_is_at_chance_however_few_the_examples() -> None:
    targets = (torch.arange(100) % 25 == 0).long()
    net = linear(0.01 * drawn(2, 4), torch.tensor([5.0, -5.0]))
    report = wt.audit(net, (drawn(100, 4, seed=1), targets), schemes="int8,int4")
    assert report.headline.startswith("AT CHANCE")
    assert {row.status for row in report["WT100"]} == {"not_applicable"} and not report.passed


def test_far_worse_than_chance_is_named() -> None:
    targets = torch.arange(400) % 4
    net, inputs = linear(torch.eye(4)), torch.eye(4)[targets] + 0.01 * drawn(400, 4)
    rotated = wt.audit(net, (inputs, (targets + 1) % 4), schemes="int8")
    assert rotated.headline.startswith("WORSE THAN CHANCE")
    assert rotated["WT001"][0].verdict == "worse than chance" and not rotated.passed
    common = torch.where(torch.arange(400) % 20 < 17, 1, torch.arange(400) % 4)  # 89 % of the examples are one class
    shifted = wt.audit(net, (torch.eye(4)[common] + 0.01 * drawn(400, 4), (common + 1) % 4), schemes="int8")
    assert shifted.headline.startswith("WORSE THAN CHANCE")
    larger = wt.audit(net, (drawn(400, 4), 100.0 * drawn(400, 4, seed=1)), schemes="int8")
    assert larger.headline.startswith("AT CHANCE")


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 100.0), (100.0, 0.0)])
def test_outputs_in_other_units_than_the_targets_are_named(scale: float, shift: float) -> None:
    inputs = drawn(400, 4)
    targets = scale * inputs + drawn(400, 4, seed=1) / 9 + shift
    report = wt.audit(linear(torch.eye(4)), (inputs, targets), schemes="int8")
    assert report.headline.startswith("OTHER UNITS")
    assert verdicts(report) == {"int8": "not applicable"} and not report.passed


def test_a_regression_that_explains_little_is_better_than_chance_on_the_same_targets() -> None:
    inputs = drawn(1000, 4)
    targets = 0.25 * inputs[:, :1] + drawn(1000, 1, seed=1)
    report = wt.audit(linear(torch.tensor([[0.25, 0.0, 0.0, 0.0]])), (inputs, targets), schemes="int8")
    assert report["WT001"][0].verdict == "measured" and verdicts(report) == {"int8": "safe"}


# ---- labels and probabilities -------------------------------------------------------------------------------------


def several(examples: int = 300) -> tuple[Tensor, Tensor]:
    inputs = drawn(examples, 4)
    return inputs, (inputs > 0).float()


def test_logits_of_labels_are_not_scored_by_squared_error() -> None:
    inputs, targets = several()
    for columns in (4, 1):
        net = linear(20.0 * torch.eye(4)[:columns])
        with pytest.raises(DataError, match="label_accuracy"):
            wt.audit(net, wt.Task(inputs, targets[:, :columns], measure="squared_error"), schemes="int8")
        given = (inputs, targets[:, :columns])
        for right in (given, wt.Task(*given, measure="label_accuracy")):
            report = wt.audit(net, right, schemes="int8,int2")
            assert report["WT001"][0].estimates[0].value == 1.0 and report.record.task.measure == "label_accuracy"
            assert bool(report.record.task.chosen) == (right is given)


def test_numbers_that_happen_to_be_0_and_1_are_wanted_outputs() -> None:
    _, targets = several()
    good = wt.audit(linear(torch.eye(4)), (targets + 0.1 * drawn(300, 4, seed=5), targets), schemes="int8")
    assert good.record.task.measure == "squared_error" and good["WT001"][0].verdict == "measured"
    # A bad net is no net of logits: that it is bad is what its report says.
    bad = wt.audit(linear(3.0 * torch.eye(4)), (drawn(300, 4, seed=6), targets), schemes="int8")
    assert bad.headline.startswith("WORSE THAN CHANCE")


def test_labels_are_counted_from_logits_and_from_probabilities() -> None:
    _, targets = several(40)
    logits = drawn(40, 4, seed=7)
    wanted = ((logits > 0) == (targets > 0.5)).float().mean(1)
    assert torch.equal(label_accuracy(logits, targets, logits), wanted)
    assert torch.equal(label_accuracy(logits.sigmoid(), targets, logits.sigmoid()), wanted)
    shares = targets.mean(0)
    assert label_accuracy.chance(logits, targets) == pytest.approx(float(torch.maximum(shares, 1 - shares).mean()))


def test_probabilities_are_not_read_as_logits() -> None:
    logits, targets = drawn(200, 5), torch.arange(200) % 5
    plain, told = nll(logits, targets, logits), nll(logits.softmax(1), targets, logits.softmax(1))
    torch.testing.assert_close(told, plain, atol=1e-5, rtol=1e-4)
    answers = torch.eye(5)[targets] + 0.3 * drawn(200, 5, seed=8)
    net = nn.Sequential(linear(4.0 * torch.eye(5)), nn.Softmax(-1)).eval()
    report = wt.audit(net, wt.Task(answers, targets, measure="nll"), schemes="int8")
    held = wt.audit(net[0], wt.Task(answers, targets, measure="nll"), schemes="int8")
    scores = [one["WT001"][0].estimates[0].value for one in (report, held)]
    assert scores[0] == pytest.approx(scores[1], rel=1e-4)


# ---- repeats ------------------------------------------------------------------------------------------------------


def four_classes(examples: int) -> tuple[Tensor, Tensor]:
    targets = torch.arange(examples) % 4
    return torch.eye(4)[targets] + 0.4 * drawn(examples, 4, seed=9), targets


def test_to_repeat_examples_changes_nothing() -> None:
    inputs, targets = four_classes(20)
    net = linear(torch.eye(4) + 0.3 * drawn(4, 4, seed=4))
    once = wt.audit(net, (inputs, targets), schemes="int8,int3,noise5")
    many = wt.audit(net, (inputs.repeat(100, 1), targets.repeat(100)), schemes="int8,int3,noise5")
    assert [row.estimates for row in many["WT100"]] == [row.estimates for row in once["WT100"]]
    assert many.headline == once.headline and "SAFE" not in many.headline
    assert (many.record.task.examples, many.record.task.repeats) == (20, 1980)
    assert once.record.task.repeats is None
    # Whatever tells copies apart that no net sees.
    task = wt.Task(inputs.repeat(100, 1), targets.repeat(100))
    for told in (task.with_groups(range(2000)), task.with_factors({"row": range(2000)})):
        clusters = told.once().clusters
        assert clusters is not None and np.array_equal(np.bincount(clusters), [100] * 20)


def test_one_example_among_many_may_not_outweigh_them() -> None:
    inputs, targets = four_classes(500)
    heavy = torch.cat([torch.arange(500), torch.zeros(200, dtype=torch.long)])
    assert len(wt.Task(inputs[heavy], targets[heavy]).once().targets) == 500
    # A few pairs leave intervals as they are, and scores as benchmarks count them.
    few = torch.cat([torch.arange(500), torch.arange(10)])
    task = wt.Task(inputs[few], targets[few])
    assert task.once() is task


def test_padding_does_not_tell_prompts_apart() -> None:
    left, right = torch.tensor([[0, 0, 5, 6]] * 30), torch.tensor([[5, 6, 9, 9]] * 30)
    other = torch.tensor([[0, 7, 5, 6]] * 30)
    masks = torch.tensor([[0, 0, 1, 1]] * 30 + [[1, 1, 0, 0]] * 30 + [[0, 1, 1, 1]] * 30)
    held = {"input_ids": torch.cat([left, right, other]), "attention_mask": masks}
    task = wt.Task(held, torch.ones(90, dtype=torch.long)).once()
    assert (len(task.targets), task.repeats) == (2, 88)
    longer = {name: nn.functional.pad(part, (0, 3)) for name, part in reversed(held.items())}
    assert {*wt.Task(longer, torch.ones(90, dtype=torch.long)).contents} == {*task.contents}
    # The same inputs with two answers are examples of one group.
    both = wt.Task(held, torch.arange(90) % 2).once()
    assert (len(both.targets), both.record.alike, both.record.distinct) == (90, 2, None)
    assert both.clusters is not None and sorted(np.bincount(both.clusters)) == [30, 60]


def test_large_numbers_are_told_apart() -> None:
    ids = torch.tensor([[2**24], [2**24 + 1]])
    assert len({*wt.Task(ids, torch.tensor([0, 1])).contents}) == 2
    inputs, targets = four_classes(60)
    groups = torch.arange(60) // 3
    small, large = (wt.Task(inputs, targets).with_groups(groups + start).once() for start in (0, 10**9))
    assert small.clusters is not None and large.clusters is not None
    same = [task.clusters.unique(return_inverse=True)[1] for task in (small, large)]
    assert torch.equal(*same) and len(same[0].unique()) == 20


def test_near_duplicates_count_as_one_group() -> None:
    inputs, targets = four_classes(20)
    net = linear(torch.eye(4) + 0.3 * drawn(4, 4, seed=4))
    near = inputs.repeat(100, 1) + 1e-3 * drawn(2000, 4, seed=11)
    report, once = (wt.audit(net, data, schemes="int8") for data in ((near, targets.repeat(100)), (inputs, targets)))
    assert report.record.task.alike == 20
    assert verdicts(report) == verdicts(once) == {"int8": "cannot tell"}
    score, alone = (one["WT001"][0].estimates[0] for one in (report, once))
    assert score.low is not None and alone.low is not None and score.low < alone.low + 0.05


def test_sets_of_near_duplicates_may_be_kinds() -> None:
    kinds = torch.arange(400) % 4
    task = wt.Task(torch.eye(4)[kinds] + 1e-6 * drawn(400, 4), kinds).once()
    assert task.clusters is not None and len(task.clusters.unique()) == 4, "one example a class, a hundred times"
    assert torch.equal(task.behaviors, kinds) and task.once().digest == task.digest
    equal = wt.Task(torch.eye(4)[kinds], kinds).with_factors({"row": range(400)}).once()
    assert equal.clusters is not None and len(equal.clusters.unique()) == 4


def test_what_merely_lies_close_is_no_duplicate() -> None:
    for inputs in (
        torch.linspace(-1, 1, 800)[:, None],  # dense, on a line
        drawn(2000, 1),  # at random there
        torch.cartesian_prod(torch.linspace(0, 1, 30), torch.linspace(0, 1, 30)),
        drawn(800, 8).cumsum(0),  # a walk
        drawn(900, seed=2).cumsum(0).unfold(0, 32, 1),  # windows of a series
        (drawn(800, 10) > 0).float(),
    ):
        assert copies(inputs, torch.zeros(len(inputs)).long()) is None


def test_near_copies_have_the_same_whole_numbers_and_target() -> None:
    near = drawn(30, 1)[torch.arange(600) % 30] + 1e-5 * drawn(600, 1, seed=1)
    alike, wanted = torch.arange(600) % 3, drawn(600, 1, seed=2)
    sets = copies(near, alike)
    assert sets is not None and len(set(sets.tolist())) == 30
    assert copies(near, wanted) is None, "an hour of the day, say, and what was measured at it"
    assert copies({"time": near, "ids": torch.arange(600)}, alike) is None
    doses = torch.tensor([0.01, 1.0, 100.0, 10_000.0])[torch.arange(200) % 4, None]
    assert copies(doses, drawn(200, 1)) is None, "levels some of which lie close beside the others"


# ---- errors in Python ---------------------------------------------------------------------------------------------


class Given(Measure):
    """Gives what a function makes of right answers."""

    name = "given"

    def __init__(self, made: Callable[[Tensor], Any]) -> None:
        self.made = made

    def __call__(self, scores: Tensor, targets: Tensor, clean: Tensor) -> Tensor:
        return self.made((scores.argmax(-1) == targets).float())

    def chance(self, scores: Tensor, targets: Tensor) -> float:
        return 0.0


def with_one(value: float) -> Callable[[Tensor], Tensor]:
    return lambda right: torch.cat([right[:3], torch.tensor([value]), right[4:]])


@pytest.mark.parametrize(
    ("measure", "words"),
    [
        (Given(lambda right: right * np.nan), "gives no example a number"),
        (Given(with_one(np.inf)), "example 3"),
        (Given(lambda right: right[:, None]), "one number per example"),
    ],
)
def test_a_measure_that_gives_no_number_is_named(measure: Measure, words: str) -> None:
    inputs, targets = four_classes(40)
    with pytest.raises(WheeltapError) as caught:
        wt.audit(linear(torch.eye(4)), wt.Task(inputs, targets, measure=measure), schemes="int8")
    assert words in str(caught.value)


def test_an_example_that_has_no_number_is_left_out_and_counted() -> None:
    inputs, targets = four_classes(40)
    inputs[3, 0] = 99.0

    def known(scores: Tensor, targets: Tensor) -> Tensor:
        right = (scores.argmax(-1) == targets).float()
        return torch.where(scores[:, 0] > 50.0, torch.nan, right)

    net, kept = linear(torch.eye(4)), torch.arange(40) != 3
    mine = wt.measure.of(known, bounded=True)
    report = wt.audit(net, wt.Task(inputs, targets, measure=mine), schemes="int8,int2")
    less = wt.audit(net, wt.Task(inputs[kept], targets[kept], measure=mine), schemes="int8,int2")
    assert report.record.task.left_out == 1 and report.record.task.examples == 39
    assert verdicts(report) == verdicts(less) and report["WT001"][0].estimates == less["WT001"][0].estimates


def test_a_measure_that_fails_under_a_disturbance_alone_is_no_divergence() -> None:
    inputs, targets = four_classes(40)
    clean = linear(torch.eye(4))(inputs).detach()

    class Strict(Given):
        """Not defined where outputs changed."""

        def __call__(self, scores: Tensor, targets: Tensor, clean_scores: Tensor) -> Tensor:
            right = super().__call__(scores, targets, clean_scores)
            return right if torch.equal(scores, clean) else with_one(np.nan)(right)

    task = wt.Task(inputs, targets, measure=Strict(lambda right: right))
    row = wt.audit(linear(torch.eye(4)), task, schemes="noise5")["WT100"][0]
    assert row.status == "error" and "gives NaN" in row.because
