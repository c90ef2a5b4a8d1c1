"""Numbers become text in one place; these are its promises."""

import math

import msgspec

from tests.report.report_pieces import estimate
from tests.report.shipped_cases import shipped
from wheeltap.audits import headline
from wheeltap.core.records import Estimate
from wheeltap.report import deployment, words


def test_a_number_keeps_about_three_digits() -> None:
    texts: list[tuple[float | None, str]] = [
        (None, "no number"), (math.nan, "no number"), (math.inf, "no number"), (0.0, "0.000"), (-0.0, "0.000"),
        (-0.0001, "-0.000100"), (1e-9, "1.0e-09"), (0.966, "0.966"), (-0.0123, "-0.012"), (0.00123, "0.00123"),
        (12.345, "12.35"), (123.45, "123.5"), (12345.6, "12,346"),
    ]  # fmt: skip
    for value, text in texts:
        assert words.number(value) == text


def test_a_value_and_its_interval_share_their_decimals_and_missing_ends_are_said() -> None:
    assert words.interval(estimate("x", 0.966, 0.014)) == "0.966 [0.952, 0.980]"
    assert words.interval(estimate("x", -0.0001, 0.009)) == "0.000 [-0.009, 0.009]"
    assert words.interval(estimate("x", 4.0, 0.5, unit="bits")) == "4 [3.5, 4.5]"
    texts = {
        (None, None, None): "no number", (0.4, None, None): "0.400 [no interval]",
        (0.4, None, 0.5): "0.400 [open, 0.500]", (0.4, 0.3, None): "0.400 [0.300, open]",
        (None, 0.3, None): "above 0.300", (None, None, 0.3): "below 0.300",
        (None, 0.2, 0.3): "no number [0.200, 0.300]",
    }  # fmt: skip
    for (value, low, high), text in texts.items():
        made = Estimate(name="x", value=value, low=low, high=high, level=0.95, n=3, unit="u", method="m")
        assert words.interval(made) == text
    exact = Estimate(name="x", value=0.25, low=0.25, high=0.25, level=1.0, n=3, unit="u", method="exact")
    assert words.interval(exact) == "0.250 [exact]"
    bits = msgspec.structs.replace(exact, value=None, low=None, high=4.04, level=0.95, unit="bits")
    assert words.interval(bits) == "below 4.040"
    assert words.interval(msgspec.structs.replace(bits, value=3.0)) == "3 [open, 4]"
    # Audits write headlines with str(estimate): the page must print the same digits.
    for value, half in ((0.97, 0.014), (-0.16, 0.011), (0.0, 0.009), (2.5, 0.3), (0.0, 0.0)):
        assert words.interval(estimate("x", value, half)) == str(estimate("x", value, half))


def test_text_is_plain_and_an_interval_stays_on_one_line() -> None:
    assert words.plain("a\x1b[31m\u202eb\nc\td") == "a?[31m?b c d"
    assert words.paragraphs("one\ntwo\n\n three ") == ("one two", "three")
    assert words.hold("is 0.966 [0.950, 0.980] now") == "is 0.966\u00a0[0.950,\u00a00.980] now"
    assert words.hold("no [brackets, here]") == "no [brackets, here]"


def test_a_loss_is_rounded_in_one_way_everywhere() -> None:
    """Half of a tenth is rounded up, as a decimal: in the table, in the answer, and beside a verdict."""
    record, ends = shipped(), {"value": 0.0325, "low": 0.0225, "high": 0.0425}
    half = [
        msgspec.structs.replace(f, estimates=tuple(msgspec.structs.replace(e, **ends) for e in f.estimates))
        for f in record.findings
    ]
    (table,) = deployment.lines(msgspec.structs.replace(record, findings=tuple(half)))
    [cells] = [line.cells for line in table.lines if line.label == "4 bits, per channel"]
    assert cells == ("3.3", "3.3 [2.3, 4.3]", "3.3 %")
    assert headline.amount(0.0325, record.task) == "3.3 points" and str(half[-1].estimates[0]).startswith("0.033 [")
