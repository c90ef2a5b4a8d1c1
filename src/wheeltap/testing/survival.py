"""One assertion for tests: a model survives the schemes by which it will be shipped."""

from pathlib import Path

from wheeltap.api import audit
from wheeltap.audits.slices import title_of
from wheeltap.report import gate
from wheeltap.report.report import Report
from wheeltap.runs.given import Model
from wheeltap.sources.examples import Examples, task_of


def assert_survives(
    model: Model, task: Examples, *, store: str | Path | None = None, partial: bool = False, **limits: float
) -> Report:
    """Fails unless each deployment scheme is shown to cost a model at most its limit.

        assert_survives(net, (inputs, targets), nf4=0.01, **{"int4-g32": 0.02}, store=wheeltap_store)

    Shown means that the upper end of the loss's interval is at most the limit; more examples make it narrower. That is
    weaker than the verdict ``safe``, which is corrected for all tests of the report: one that passes may read ``cannot
    tell``. To demand ``safe``: ``wt.audit(..., margin=limit).check(fail_on="cannot-tell")``. A run fails whose controls
    failed, or that disturbed too few of the weights.

    Args:
        model: As for ``wt.audit``.
        task: The examples, as for ``wt.audit``.
        store: File that keeps what was measured: the fixture ``wheeltap_store`` has one for tests.
        partial: Whether a model passes of which less than 90 % of the weights could be disturbed.
        limits: The largest loss of each scheme that is accepted, in units of the measure: .01 is one point of right
            answers. Of several test sets it holds on each as well as on all examples together; a set may have a limit
            of its own: ``**{"int4 on hard": .03}``. The smallest one is the margin of the report's verdicts, where the
            measure is a share.

    Raises:
        GateError: If one is not shown; the report's table is its note.
        WheeltapError: See ``wt.audit``.
    """
    __tracebackhide__ = True  # pytest shows the line of the test
    examples = task_of(task)
    margin = (min(limits.values(), default=0.0) or None) if examples.measure.bounded else None
    on = [title_of("", one.name) for one in examples.record.sets]
    whole = [name.removesuffix(next((part for part in on if name.endswith(part)), "")) for name in limits]
    report = audit(model, examples, schemes=whole, margin=margin, partial=partial, store=store)
    try:
        report.check(limits)
    except gate.GateError as error:
        error.add_note(repr(report))
        error.markdown = report.markdown()
        raise
    return report
