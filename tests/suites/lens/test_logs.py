"""Two logs of one benchmark: losses by tests that independent code confirms; unlike logs are refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from logs import archive, choice, generated, lines, sample
from numpy.typing import NDArray
from scipy import stats

import wheeltap as wt
from tests.published import published
from wheeltap.audits import settle
from wheeltap.cli import main
from wheeltap.core.errors import DataError, MissingFile, UsageError
from wheeltap.core.records import Cost, Finding
from wheeltap.suites.lens import logs

Grades = NDArray[np.int_]
WHEN = "2026-11-30T01-02-03.456789"
TASKS = ("arc_easy", "hellaswag", "winogrande")


def folder(path: Path, tasks: dict[str, Grades], *, shots: int = 0, prompt: str = "?") -> str:
    """What lm-eval writes: samples of each task, and results."""
    (path / "model").mkdir(parents=True)
    for task, right in tasks.items():
        rows = [
            choice(at, [-1.0, -2.0] if one else [-2.0, -1.0], 0, doc={"question": f"{at} {one_of(at)}"},
                   arguments={"gen_args_0": {"arg_0": f"{prompt} {at}", "arg_1": " a"}})
            for at, one in enumerate(right)
        ]  # fmt: skip
        lines(path / "model" / f"samples_{task}_{WHEN}.jsonl", rows)
    results = {"results": {}, "n-shot": dict.fromkeys(tasks, shots), "versions": dict.fromkeys(tasks, 1.0)}
    (path / "model" / f"results_{WHEN}.json").write_text(json.dumps(results))
    return f"answers:{path}"


def one_of(at: int) -> str:
    """Some words, others for each item."""
    rng = np.random.default_rng(at)
    return " ".join("".join(chr(97 + int(one)) for one in rng.integers(0, 26, 6)) for _ in range(8))


def rows(path: Path, right: Grades, **more: Any) -> str:
    """Our own rows."""
    return f"answers:{lines(path, [{'id': at, 'correct': bool(one), **more} for at, one in enumerate(right)])}"


def found(report: wt.Report) -> dict[str, Finding]:
    """The findings on losses, by their task."""
    return {one.scheme: one for one in report.findings if one.scheme}


def changed(right: Grades, lost: int, gained: int) -> Grades:
    """The same with so many answers lost, and so many gained."""
    made = right.copy()
    made[np.flatnonzero(right == 1)[:lost]] = 0
    made[np.flatnonzero(right == 0)[:gained]] = 1
    return made


def by_hand(lost: int, gained: int, n: int, margin: float) -> tuple[float, float]:
    """McNemar's exact p, and that of "the loss is no more than the margin": Bonett and Price's interval."""
    few, many = min(lost, gained), lost + gained
    exact = min(2.0 * sum(stats.binom.pmf(k, many, 0.5) for k in range(few + 1)), 1.0)
    gap = (lost - gained) / (n + 2)
    spread = np.sqrt(((lost + gained + 2) / (n + 2) - gap**2) / (n + 1))
    return float(exact), float(2.0 * stats.t.sf((abs(gap) - margin) / spread, n + 1)) if abs(gap) > margin else 1.0


def test_each_task_and_all_of_them_are_what_independent_code_says(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    before = {task: (rng.random(n) < 0.7).astype(int) for task, n in zip(TASKS, (400, 900, 250), strict=True)}
    counts = dict(zip(TASKS, ((30, 5), (12, 15), (9, 8)), strict=True))
    after = {task: changed(right, *counts[task]) for task, right in before.items()}
    report = wt.compare(folder(tmp_path / "base", before), folder(tmp_path / "q4.k", after), margin=0.02)
    mine = found(report)
    assert list(mine) == ["all items", *TASKS] and {one.code for one in mine.values()} == {"WT001"}
    every = {"all items": (51, 28, 1550), **{task: (*counts[task], len(before[task])) for task in TASKS}}
    for task, (lost, gained, n) in every.items():
        test, mcnemar, *_ = mine[task].estimates
        exact, p = by_hand(lost, gained, n, 0.02)
        assert mcnemar.p == pytest.approx(exact, rel=1e-12) and test.p == pytest.approx(p, rel=1e-12, abs=1e-12)
        assert test.value == pytest.approx((lost - gained) / n) and test.n == n
    assert mine["arc_easy"].verdict == "costs" and mine["arc_easy"].alarm
    assert mine["hellaswag"].verdict == "safe" and mine["winogrande"].verdict == "cannot tell"
    assert {one.name for one in report.record.subjects} == {"base", "q4.k"}


def test_the_verb_says_what_python_says_and_ends_with_the_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    right = np.tile([1, 1, 1, 0], 300)
    base, same, worse = (
        rows(tmp_path / f"{name}.jsonl", changed(right, lost, 0), prompt="?")
        for name, lost in (("base", 0), ("same", 0), ("worse", 120))
    )
    assert main(["compare", base, same]) == 0
    assert main(["compare", base, worse, "--json", str(tmp_path / "r.json"), "--store", str(tmp_path / "s")]) == 1
    report = wt.compare(base, worse)
    assert wt.Report.read(tmp_path / "r.json").findings == report.findings == wt.judge(tmp_path / "s").findings
    assert found(report)["all items"].verdict == "costs"
    assert main(["compare", base, worse, "--margin", ".2", "--name", "bf16,int4"]) == 0
    assert "bf16 scores 75.0 %" in capsys.readouterr().out
    three = wt.compare(base, same, worse)
    assert [one.verdict for one in three.findings if one.scheme] == ["safe", "costs"]


def test_a_score_no_better_than_a_guess_has_nothing_to_lose(tmp_path: Path) -> None:
    guessed = {"arc_easy": np.tile([1, 0], 200)}
    report = wt.compare(folder(tmp_path / "a", guessed), folder(tmp_path / "b", guessed))
    assert found(report)["all items"].status == "not_applicable"


def test_logs_of_inspect(tmp_path: Path) -> None:
    ten = [sample(at, 1, "C" if at % 4 else "I") for at in range(10)]
    steps = [{"solver": "fewshot", "params": {"n": 0}}]
    header = {"version": 2, "status": "success", "plan": {"steps": steps}, "eval": {"model": "m", "task": "sums"}}
    two_shot = {**header, "plan": {"steps": [{"solver": "fewshot", "params": {"n": 2}}]}}
    one, same = (f"answers:{archive(tmp_path / name, ten, header=header)}" for name in ("a.eval", "b.eval"))
    assert found(wt.compare(one, same))["all items"].verdict == "cannot tell"
    for other in (two_shot, {**header, "eval": {"model": "m", "task": "products"}}):
        archive(tmp_path / "b.eval", ten, header=other)
        with pytest.raises(DataError):
            wt.compare(one, same)
    unscored = sorted(published("inspect-logs/LICENSE").parent.glob("*_popularity_*.eval"))
    with pytest.raises(DataError):
        wt.compare(*(f"answers:{path}" for path in unscored), names=("one", "two"))


def unlike(path: Path, kind: str) -> tuple[str, str]:
    right = np.tile([1, 1, 0], 20)
    base = folder(path / "a", {"arc_easy": right, "boolq": right})
    both = {"arc_easy": right, "boolq": right}
    match kind:
        case "items":
            return base, folder(path / "b", {**both, "boolq": right[:50]})
        case "few-shot":
            return base, folder(path / "b", both, shots=5)
        case "prompts":
            return base, folder(path / "b", both, prompt="Q:")
        case "tasks":
            return base, folder(path / "b", {"arc_easy": right, "piqa": right})
        case "metric":
            several = [generated(at, ["4"], 1.0) for at in range(9)]
            one = lines(path / "one.jsonl", several)
            two = lines(path / "two.jsonl", [{**row, "metrics": ["em"], "em": 1.0} for row in several])
            return f"answers:{one}", f"answers:{two}"
        case _:
            (path / "empty").mkdir()
            return base, f"answers:{path / 'empty'}"


@pytest.mark.parametrize("kind", ["items", "few-shot", "prompts", "tasks", "metric", "empty"])
def test_unlike_logs_are_refused(tmp_path: Path, kind: str) -> None:
    with pytest.raises((DataError, MissingFile)):
        wt.compare(*unlike(tmp_path, kind))


def test_what_only_models_can_be_asked_is_refused(tmp_path: Path) -> None:
    one, two = (rows(tmp_path / f"{name}.jsonl", np.array([1, 0, 1])) for name in "ab")
    for words in ([one, "digits"], [one, two, "--for", "nf4"], [one, two, "--name", "x"], [one, two, "--margin", "1"]):
        assert main(["compare", *words]) == 2
    assert main(["audit", one]) == 2
    with pytest.raises(UsageError):
        wt.compare(one, two, audits="score")
    assert main(["compare", one, f"answers:{tmp_path / 'none.jsonl'}"]) == 2


def test_groups_that_a_log_names_widen_the_verdict(tmp_path: Path) -> None:
    """Of 20 templates of 20 items the second model fails at one: a loss of 5 points over items, and of one template."""
    right = np.ones(400, dtype=int)
    right[::7] = 0

    def log(name: str, failed: int, *, grouped: bool) -> str:
        now = right.copy()
        now[:failed] = 0
        shared = [{"group": f"t{at // 20}"} if grouped else {} for at in range(400)]
        said = [{"id": at, "correct": bool(one), **shared[at]} for at, one in enumerate(now)]
        return f"answers:{lines(tmp_path / f'{name}.jsonl', said)}"

    for grouped, verdict, test in ((False, "costs", "McNemar p"), (True, "cannot tell", "paired p")):
        one, two = (log(f"{name}{grouped}", failed, grouped=grouped) for name, failed in (("a", 0), ("b", 20)))
        report = wt.compare(one, two, margin=0.01)
        assert found(report)["all items"].verdict == verdict
        assert test in str(report.record.sections)


# ---- errors of verdicts ----------------------------------------------------------------------------------------

Design = Callable[[np.random.Generator, float], tuple[dict[str, Grades], dict[str, Grades]]]


def drawn(
    rng: np.random.Generator, losses: dict[str, tuple[int, float]]
) -> tuple[dict[str, Grades], dict[str, Grades]]:
    """Answers before and after, whose score falls by so much: as many change beside as are lost."""
    before, after = dict[str, Grades](), dict[str, Grades]()
    for task, (n, loss) in losses.items():
        before[task] = (rng.random(n) < 0.8).astype(int)
        gain, lost = 0.02 / 0.2, (0.02 + loss) / 0.8
        flips = rng.random(n)
        after[task] = np.where(before[task] == 1, flips >= lost, flips < gain).astype(int)
    return before, after


DESIGNS: dict[str, Design] = {
    "tiny": lambda rng, loss: drawn(rng, {"a": (15, loss)}),
    "skewed": lambda rng, loss: (
        {"a": np.ones(400, dtype=int)}, {"a": (rng.random(400) >= loss).astype(int)}
    ),
}  # fmt: skip


def verdicts(path: Path, design: Design, rng: np.random.Generator, loss: float) -> dict[str, str]:
    """Verdicts of one pair of logs, by task."""
    answers: list[dict[str, Any]] = []
    for tasks in design(rng, loss):
        held: dict[str, Any] = {}
        for task, right in tasks.items():
            graded = right.astype(np.int32)
            one = logs.Answers(name="x", right=graded, samples=np.ones_like(graded))
            held[task] = logs.AnswerFile(shape="x", items=tuple(map(str, range(len(right)))), systems=(one,))
        answers.append(held)
    run = logs.of_answers(answers, names=("a", "b"))
    record = settle.judge(
        run.plan, {one.key: one for one in run.outcomes}.get, cost=Cost(forwards=0.0, seconds=0.0, trials=0, reused=0),
        provenance={},
    )  # fmt: skip
    return {one.scheme: one.verdict for one in record.findings if one.scheme}


@pytest.mark.parametrize("name", DESIGNS)
def test_false_verdicts_are_no_more_than_alpha(name: str, tmp_path: Path) -> None:
    """At a loss of the margin nothing may be called safe, without a loss nothing costly, on all items together."""
    rng, pairs = np.random.default_rng(0), 40
    most = stats.binom.ppf(0.999, pairs, 0.05)
    for loss, wrong in ((0.02, "safe"), (0.02, "costs"), (0.0, "costs")):
        said = [verdicts(tmp_path, DESIGNS[name], rng, loss)["all items"] for _ in range(pairs)]
        assert said.count(wrong) <= most, (name, loss, wrong, said.count(wrong))
