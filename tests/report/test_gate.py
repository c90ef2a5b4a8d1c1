"""The gate: exit codes, what fails, and which losses are shown to stay under a limit."""

import pickle

import msgspec
import numpy as np
import pytest
from scipy.stats import binom

from tests.report.report_cases import CASES, demo, empty
from tests.report.report_pieces import finding
from tests.report.shipped_cases import (
    EVEN,
    MARGIN,
    ROWS,
    pair,
    shipped,
    shipped_void,
    uncovered,
)
from wheeltap.core.errors import UnknownName, UsageError, WheeltapError
from wheeltap.core.records import UNCOVERED, Finding
from wheeltap.core.report import ReportRecord
from wheeltap.report import Report, gate
from wheeltap.report.gate import FailOn, GateError
from wheeltap.report.origin import unfinished
from wheeltap.stats.effect import mean_effect

LEVELS: tuple[FailOn, ...] = ("costs", "may-cost", "cannot-tell", "never")
BY_NAME = {one.name: one for one in ROWS}


def only(*names: str) -> ReportRecord:
    """A report on one model with these of its schemes."""
    return shipped(tuple(BY_NAME[name] for name in names))


def _shown_claim() -> ReportRecord:
    """A claim that was found and is no alarm."""
    claim = msgspec.structs.replace(finding("WT205", "found", "net"), alarm=False)
    return msgspec.structs.replace(only("int8"), findings=(claim,))


def _partly(*names: str) -> ReportRecord:
    """Schemes of a model of which half was disturbed: what cost something is shown, that others do not is not."""
    record = only(*names)
    kept = {"found": {"partly": True}, "excluded": {"status": "not_applicable", "verdict": UNCOVERED, "partly": True}}
    rows = (msgspec.structs.replace(one, **kept.get(one.status, {})) for one in record.findings)
    return msgspec.structs.replace(record, findings=tuple(rows))


def _unanswered() -> ReportRecord:
    """Beside the score, one scheme that does not apply to the model."""
    record = only("wanda50")
    return msgspec.structs.replace(record, findings=tuple(f for f in record.findings if f.status != "excluded"))


# ---- exit codes -----------------------------------------------------------------------------------------------


CODES: list[tuple[ReportRecord, tuple[int, ...]]] = [
    (only("int8", "nf4"), (0, 0, 0, 0)),
    (only("int8", "wanda50"), (0, 0, 1, 0)),  # asked for, and no answer
    (only("int4", "int8"), (0, 1, 1, 0)),
    (only("int3-g32", "int8"), (1, 1, 1, 0)),
    (_shown_claim(), (0, 0, 0, 0)),
    (pair(), (1, 1, 1, 0)),
    (empty(), (0, 0, 2, 0)),  # nothing was asked that has a verdict
    (uncovered(), (2, 2, 2, 0)),
    (_partly("int8"), (2, 2, 2, 0)),
    (_partly("int3-g32", "int8"), (1, 1, 1, 0)),  # a loss that was seen is one
    (_unanswered(), (2, 2, 2, 0)),  # nothing that was asked has an answer
    (shipped_void(), (3, 3, 3, 3)),
    (unfinished(only("int8"), 3), (2, 2, 2, 2)),
    (unfinished(shipped_void(), 3), (2, 2, 2, 2)),
]


def test_the_exit_code_of_each_level() -> None:
    for record, codes in CODES:
        assert tuple(gate.exit_code(record, level) for level in LEVELS) == codes, record.headline
        report = Report(record)
        assert report.passed is (codes[0] == 0)
        for level, code in zip(LEVELS, codes, strict=True):
            if code:
                with pytest.raises(GateError):
                    report.check(fail_on=level)
            else:
                report.check(fail_on=level)
    assert {gate.exit_code(make(), "costs") for make in CASES.values()} == {0, 1, 2, 3}


def test_what_fails_at_each_level() -> None:
    record = shipped()
    names = [{one.scheme for one in gate.failing(record, level)} for level in LEVELS]
    costs = {"int3-g32", "prune-2:4", "int4-g128-aware"}
    undecided = {"int4-g32", "noise5", "flips1e-6-int8"}
    assert names == [costs, costs | {"int4"}, costs | {"int4", "wanda50"} | undecided, set()]
    assert {one.scheme for one in gate.uncovered(uncovered())} == {one.name for one in EVEN}
    assert gate.uncovered(record) == ()


# ---- check ----------------------------------------------------------------------------------------------------


def test_the_error_of_a_report_that_does_not_pass_is_an_assertion_and_can_be_sent() -> None:
    with pytest.raises(GateError) as caught:
        Report(shipped()).check()
    assert isinstance(caught.value, AssertionError) and isinstance(caught.value, WheeltapError)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_a_loss_is_held_against_the_upper_end_of_its_interval() -> None:
    report = Report(shipped())
    high = {one.scheme: one.estimates[0].high or 0.0 for one in report.findings if one.scheme and one.estimates}
    for name, end in high.items():
        report.check(max_loss={name: end})
        with pytest.raises(GateError, match=name):
            report.check(max_loss={name: end - 1e-9})


def test_another_name_of_a_scheme_is_known_and_an_unknown_one_is_not() -> None:
    report = Report(shipped())
    report.check(max_loss={"bnb_4bit_nf4": 0.02})
    with pytest.raises(GateError, match="nf4"):
        report.check(max_loss={"bnb_4bit_nf4": 0.01, "nf4": 0.5})
    with pytest.raises(UnknownName, match="int4-g32"):
        report.check(max_loss={"int4-g31": 0.02})
    with pytest.raises(UnknownName, match="nf4"):
        report.check(max_loss={"fp4": 0.02})
    with pytest.raises(UsageError):
        Report(demo()).check(max_loss={"int4": 0.02})


def test_a_limit_that_means_nothing_is_refused() -> None:
    for bad in (float("nan"), float("inf"), -0.01):
        with pytest.raises(UsageError, match="int8"):
            Report(shipped()).check(max_loss={"int8": bad})
    with pytest.raises(UsageError):
        Report(shipped()).check(max_loss={})


def test_limits_hold_for_every_model_and_not_for_pairs() -> None:
    report = Report(pair())
    report.check(max_loss={"int8": 0.01})
    with pytest.raises(GateError) as caught:
        report.check(max_loss={"int4": 0.04})
    assert "int4 of new" in str(caught.value) and "int4 of old" not in str(caught.value)
    without = msgspec.structs.replace(pair(), findings=tuple(one for one in pair().findings if one.subject != "new"))
    with pytest.raises(GateError, match="int8 of new"):
        Report(without).check(max_loss={"int8": 0.01})


def test_the_level_that_the_limits_are_held_at() -> None:
    """Counted over every outcome where answers only get worse: a loss above the limit passes in 7 % of runs at most."""
    worst = 0.0
    for examples in (50, 200, 540, 2000):
        for lost in range(6):
            cells = np.zeros((1, examples))
            cells[0, :lost] = 1.0
            high = mean_effect(cells, bounded=True, unit="accuracy", margin=MARGIN).high
            assert high is not None
            worst = max(worst, float(binom.cdf(lost, examples, high)))
    assert 0.025 < worst < 0.07


# ---- the real thing -------------------------------------------------------------------------------------------


def test_a_real_report_passes_by_what_it_shows(real: Report) -> None:
    said: dict[str, Finding] = {one.scheme: one for one in real["WT100"]}
    assert (said["int8"].verdict, said["int2"].verdict, real.passed) == ("safe", "costs", False)
    with pytest.raises(GateError):
        real.check()
    real.check(max_loss={"int8": 0.03})
    with pytest.raises(GateError, match="int2"):
        real.check(max_loss={"int8": 0.03, "int2": 0.03})
    numbers = real.scalars()
    assert (numbers["small-net/int8/verdict"], numbers["small-net/int2/verdict"], numbers["passed"]) == (-1.0, 1.0, 0.0)
    assert numbers["small-net/int2/lost"] == said["int2"].estimates[0].value
    clean, rounded = numbers["small-net/score"], numbers["small-net/int2/score"]
    assert clean - rounded == pytest.approx(numbers["small-net/int2/lost"])
    assert numbers["coverage"] == min(one.coverage or 1.0 for one in real.findings)
