"""Word problems with exact answers: drawn ones, and published ones with other numbers."""

import json
import re

import pytest

from tests.published import published
from wheeltap.suites.lens.sources.passages import twin

DUCKS = (
    "Janet's ducks lay 16 eggs per day. She eats three and bakes with four. She gets $23 for each other egg. How much?",
    "She sells 16 - 3 - 4 = <<16-3-4=9>>9 eggs.\nShe makes 9 * 23 = $<<9*23=207>>207.\n#### 207",
)


def test_a_twin_has_other_numbers_and_their_answer() -> None:
    made = twin(*DUCKS, seed=0)
    assert made is not None
    own, other = made
    assert own == f"{DUCKS[0]}\nAnswer: 207"
    eggs, price, answer = map(int, re.findall(r"\d+", other))
    # 16 stands for a word elsewhere, so that it stays.
    assert eggs == 16 and price != 23 and answer == 9 * price
    assert re.sub(r"\d+", "#", own) == re.sub(r"\d+", "#", other)


@pytest.mark.parametrize(
    "solution",
    [
        "no steps\n#### 207",
        "<<9*23=200>>\n#### 200",
        "<<9*23=207>>\n#### 9",
        "<<__import__('os')=1>>\n#### 1",
        "<<9**23=1>>\n#### 1",
        "<<1/0=1>>\n#### 1",
        "<<9*23=207>>",
    ],
)
def test_steps_that_do_not_lead_to_the_answer_have_no_twin(solution: str) -> None:
    assert twin(DUCKS[0], solution, seed=0) is None


def test_twins_of_gsm8k() -> None:
    lines = published("gsm8k/test.jsonl").read_text().splitlines()[:300]
    made = 0
    for line in lines:
        row = json.loads(line)
        both = twin(row["question"], row["answer"], seed=0)
        if both is None:
            continue
        made += 1
        (*old, _), (*new, answer) = (re.findall(r"\d+", one) for one in both)
        assert [len(number) for number in old] == [len(number) for number in new] and old != new
        assert int(answer) > 0 and int(answer) == by_hand(row["answer"], dict(zip(old, new, strict=True)))
    assert made > 100


def by_hand(solution: str, moved: dict[str, str]) -> int:
    """The answer, by Python's own arithmetic on the steps."""
    known, value = dict(moved), 0.0
    for rule, result in re.findall(r"<<([^=<>]+)=([^<>]+)>>", solution):
        value = eval(re.sub(r"\d*\.?\d+", lambda found: known.get(found.group(), found.group()), rule.replace(" ", "")))
        known[result.lstrip("0") if result.startswith("0.") else result] = repr(value)
    return round(value)
