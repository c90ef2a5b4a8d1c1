"""WT501 on planted people: models that know them, that are too sure, that are far; votes alone; a live model."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import wheeltap as wt
from tests.blocks import blocks, rows
from tests.published import published
from wheeltap.core.errors import DataError
from wheeltap.core.records import Estimate, Finding
from wheeltap.core.report import ReportRecord
from wheeltap.core.section import Table
from wheeltap.core.task import Task
from wheeltap.plans.plan import AuditSpec
from wheeltap.runs.stored import judge
from wheeltap.suites.lens.audits.disagreement import AGAINST, ALL_AGREE, CLOSER, MOST_AGREE, SPLIT, UNSURE
from wheeltap.suites.lens.readings.answers import PeopleVotes
from wheeltap.suites.lens.recorded import read
from wheeltap.suites.lens.recorded.base import AnswerFile, Answers, Votes
from wheeltap.suites.lens.runs import imported
from wheeltap.testing import planted
from wheeltap.testing.contract import ReadingContract

ITEMS = 600
LABELS = ("no", "maybe", "yes")


def truth() -> np.ndarray:
    return np.random.default_rng(0).dirichlet([0.7] * 3, size=ITEMS)


def believed() -> dict[str, np.ndarray]:
    held, other = truth(), np.random.default_rng(1).dirichlet([1.0] * 3, size=ITEMS)
    sharp = held**4 + 1e-9
    return {"knows": held, "sure": sharp / sharp.sum(1, keepdims=True), "far": 0.4 * held + 0.6 * other}


def votes(*sizes: int, ordinal: bool = False) -> Votes:
    rng = np.random.default_rng(2)
    counts = rng.multinomial(rng.integers(sizes[0], sizes[-1] + 1, size=ITEMS), truth())
    return Votes(labels=LABELS, votes=counts.astype(np.int32), ordinal=ordinal)


def recording(said: Votes | None, *names: str) -> AnswerFile:
    systems = tuple(Answers(name=name, probability=believed()[name].astype(np.float32)) for name in names)
    return AnswerFile(
        shape="planted", items=tuple(f"q{at}" for at in range(ITEMS)), systems=systems, votes=said, labels=LABELS
    )


def report(folder: Path, *files: AnswerFile) -> ReportRecord:
    folder.mkdir(exist_ok=True)
    imported(files).put(folder / "planted.wheeltap")
    return judge(folder / "planted.wheeltap").record


def finding(record: ReportRecord, subject: str, title: str) -> Finding:
    [one] = [one for one in record.findings if (one.subject, one.title) == (subject, title)]
    return one


def number(found: Finding, name: str) -> Estimate:
    return {one.name: one for one in found.estimates}[name]


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> ReportRecord:
    """Three models against 3 to 9 votes an item."""
    return report(tmp_path_factory.mktemp("three"), recording(votes(3, 9), "knows", "sure", "far"))


def test_further_from_people_than_they_are_from_each_other(three: ReportRecord) -> None:
    far, knows = (finding(three, name, AGAINST) for name in ("far", "knows"))
    assert (far.status, far.verdict, far.alarm) == ("found", "further", True)
    assert knows.status != "found" or knows.verdict == "closer"


def test_too_sure_where_people_disagree(three: ReportRecord) -> None:
    sure, knows = (finding(three, name, UNSURE) for name in ("sure", "knows"))
    assert (sure.status, sure.verdict) == ("found", "overconfident")
    assert knows.status in ("excluded", "inconclusive")
    gap = number(knows, "confidence less share of people")
    assert gap.low <= 0.0 <= gap.high


def test_pairs_are_compared_on_the_same_items(three: ReportRecord) -> None:
    pair = finding(three, "knows vs far", CLOSER)
    assert pair.status == "found" and pair.alarm  # the second is further
    assert not any(one.alarm for one in three.findings if one.status in ("measured", "inconclusive", "excluded"))
    expected = np.square(believed()["far"] - truth()).sum(1).mean()  # to all people, whatever the votes
    square = number(finding(three, "far", "Distance to people"), "squared distance to all people")
    assert square.low <= expected <= square.high


LEFT = "What is left where people must agree"


def _kept(record: ReportRecord) -> list[int]:
    """How many items each threshold keeps."""
    return [int(cells[0].partition(" ")[0].replace(",", "")) for cells in rows(record, LEFT).values()]


def test_bands_and_thresholds(three: ReportRecord) -> None:
    counts = votes(3, 9).votes
    share = counts.max(1) / counts.sum(1)
    kept = [ITEMS, int((share > 0.5).sum()), int((share >= 2 / 3 - 1e-9).sum()), int((share == 1.0).sum())]
    assert blocks(three, Table, LEFT)[0].heads[2:] == ("knows", "sure", "far")
    assert _kept(three) == kept
    scores = [float(cells[1]) for cells in rows(three, LEFT).values()]
    assert scores == sorted(scores)  # keeping clear items alone flatters
    knows, sure = rows(three, "knows by agreement"), rows(three, "sure by agreement")
    assert set(knows) == set(sure) == {SPLIT, MOST_AGREE, ALL_AGREE}
    gaps = [float(one[SPLIT][3].partition(" ")[0]) for one in (sure, knows)]
    assert gaps[0] > 0.15 and abs(gaps[1]) < 0.05
    assert max(float(knows[band][2]) for band in (SPLIT, MOST_AGREE)) < float(knows[ALL_AGREE][2])
    assert sum(int(cells[0]) for cells in knows.values()) == pytest.approx(ITEMS, abs=10)


def test_entropies_of_few_people_are_refused(tmp_path: Path) -> None:
    few = finding(report(tmp_path, recording(votes(5), "knows")), "knows", "Distance to people")
    assert "Entropies are not compared: with 5 votes" in few.because
    many = finding(report(tmp_path / "more", recording(votes(30), "knows")), "knows", "Distance to people")
    assert number(many, "correlation of entropies").value > 0.8 and "Entropies" not in many.because


def test_the_ceiling_is_beside_the_scores_and_far_items_come_first(three: ReportRecord) -> None:
    assert list(rows(three, "JS distance to the votes")) == ["knows", "sure", "far", "half of the people"]
    far = [float(cells[2]) for cells in rows(three, "Items where far").values()]
    assert len(far) > 1 and far == sorted(far, reverse=True)


def test_nobody_voted_twice(tmp_path: Path) -> None:
    """A file of such votes is refused; of a store that has them the audit says why it cannot answer."""
    with pytest.raises(DataError):
        report(tmp_path, recording(votes(1), "knows"))
    held = imported([recording(votes(1), "knows")], audits=[AuditSpec(name="disagreement")])
    held.put(tmp_path / "planted.wheeltap")
    assert {one.status for one in judge(tmp_path / "planted.wheeltap").record.findings} == {"not_applicable"}


def test_one_opinion(tmp_path: Path) -> None:
    """All say the same: kappa is not defined, nothing is divided by zero, and no number of people has an interval."""
    same = Votes(labels=LABELS, votes=np.tile(np.array([4, 0, 0], dtype=np.int32), (ITEMS, 1)))
    record = report(tmp_path, recording(same, "knows"))
    assert finding(record, "knows", UNSURE).status == "not_applicable"
    assert finding(record, "knows", AGAINST).verdict == "further"
    people = finding(record, "people", "Agreement of people")
    assert people.estimates[0].value == 1.0 and all(one.low is one.high is None for one in people.estimates)


def test_scores_without_probabilities_are_shown_by_agreement(tmp_path: Path) -> None:
    right = (np.random.default_rng(3).random(ITEMS) < truth().max(1)).astype(np.int32)
    graded = Answers(name="graded", right=right, samples=np.ones(ITEMS, dtype=np.int32))
    file = replace(recording(votes(3, 9)), systems=(graded,))
    record = report(tmp_path, file)
    assert finding(record, "graded", "Distance to people").status == "not_applicable"
    scores = [float(cells[1]) for cells in rows(record, LEFT).values()]
    assert scores[0] == pytest.approx(right.mean(), abs=6e-4) and scores[-1] > scores[0]


# ---- published votes ----------------------------------------------------------------------------------------------


def test_the_crowd_of_ambient(tmp_path: Path) -> None:
    """Fleiss' kappa .345 and a mean entropy of .448 nats, as counted by others; majorities 116, 120, 105 ..."""
    record = report(tmp_path, read(published("ambient/crowdworker_annotations.jsonl")))
    people = finding(record, "people", "Agreement of people")
    assert number(people, "Fleiss' kappa").value == pytest.approx(0.345, abs=5e-4)
    assert number(people, "entropy of votes").value == pytest.approx(0.448, abs=5e-4)
    assert _kept(record) == [542, 542 - 12 - 2, 116 + 120 + 105 + 98, 116]
    far = number(people, "JS distance of two halves")
    assert far.low < 0.20 < far.high


# ---- who voted ----------------------------------------------------------------------------------------------------


def by_raters(raters: int, each: int, *, odd: float = 0.0) -> Votes:
    """Votes of named people; the first says "yes" whatever the item on a share of them."""
    rng = np.random.default_rng(3)
    who = np.argsort(rng.random((ITEMS, raters)), axis=1)[:, :each].ravel()
    item = np.repeat(np.arange(ITEMS), each)
    label = np.array([rng.choice(3, p=truth()[at]) for at in item])
    label = np.where((who == 0) & (rng.random(len(who)) < odd), 2, label)
    counts = np.zeros((ITEMS, 3), dtype=np.int32)
    np.add.at(counts, (item, label), 1)
    ballots = np.column_stack([item, who, label]).astype(np.int32)
    return Votes(labels=LABELS, votes=counts, ballots=ballots)


def test_people_who_are_known_are_a_sample_too(tmp_path: Path) -> None:
    said = by_raters(6, 3, odd=0.8)
    apart = report(tmp_path / "apart", recording(said, "knows", "far"))
    strangers = report(tmp_path / "strangers", recording(replace(said, ballots=None), "knows", "far"))
    for subject, title, name in (
        ("people", "Agreement of people", "agreement of two people"),
        ("far", "Distance to people", "JS distance to votes"),
        ("far", AGAINST, "further than people"),
    ):
        both = [number(finding(record, subject, title), name) for record in (apart, strangers)]
        widths = [one.high - one.low for one in both]
        assert both[0].value == pytest.approx(both[1].value) and widths[0] > 1.1 * widths[1], name


def test_two_people_who_vote_on_everything_say_nothing_of_others(tmp_path: Path) -> None:
    record = report(tmp_path, recording(by_raters(2, 2), "knows", "far"))
    agreed = finding(record, "people", "Agreement of people").estimates[0]
    assert agreed.low is agreed.high is None
    assert finding(record, "far", AGAINST).status == "inconclusive"
    # What a system gets of each of them is known.
    assert number(finding(record, "far", "Distance to people"), "soft accuracy").low is not None


def test_votes_belong_to_the_task_and_must_fit_it() -> None:
    plain, voted = planted.clusters().task, asked()
    assert len({plain.digest, voted.digest, asked(ordinal=True).digest}) == 3
    part = voted.part(torch.tensor([5, 3])).annotations.votes
    assert torch.equal(part, voted.annotations.votes[[5, 3]])
    for wrong in ([[1, 2]], [[0, 0]] * 4, [[1, -1]] * 4, [[0.5, 0.5]] * 4, [1, 2, 3, 4], [["a"]] * 4):
        with pytest.raises(DataError):
            Task(torch.zeros(4, 2), torch.zeros(4, dtype=torch.long)).with_votes(wrong)


# ---- a live model -------------------------------------------------------------------------------------------------


def asked(*, ordinal: bool = False) -> Task:
    task = planted.clusters().task
    assert isinstance(task, Task)
    rng = np.random.default_rng(4)
    options = int(task.targets.max()) + 1
    belief = np.full((len(task.targets), options), 0.3 / options)
    belief[np.arange(len(belief)), task.targets] += 0.7
    return task.with_votes(rng.multinomial(7, belief), ordinal=ordinal)


class TestVotes(ReadingContract):
    """The reading of votes, on a task that has some."""

    reading = PeopleVotes

    def case(self) -> planted.PlantedCase:
        return planted.PlantedCase(planted.clusters().subject, asked(ordinal=True))


def test_a_live_model_is_judged_like_a_recorded_one() -> None:
    subject, task = planted.clusters().subject, asked()
    record = wt.audit(subject, task, audits=["disagreement"]).record
    measured = finding(record, subject.name, "Distance to people")
    p, counts = torch.softmax(task.scores(subject.model), 1).numpy(), task.annotations.votes.numpy()
    soft = (counts / counts.sum(1, keepdims=True))[np.arange(len(p)), p.argmax(1)].mean()
    assert number(measured, "soft accuracy").value == pytest.approx(soft, abs=1e-6)
    assert finding(record, "people", "Agreement of people").status == "measured"
