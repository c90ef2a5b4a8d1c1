"""``wheeltap study``, as a user would type it: run, resumed, reported, refused."""

import contextlib
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import jsonschema
import msgspec
import pytest
from screens import STUDY

from wheeltap.audits.base import audits, studies
from wheeltap.cli import application, main, study
from wheeltap.cli.study import in_file, plan_of
from wheeltap.core.errors import UsageError
from wheeltap.core.study import Statistic
from wheeltap.plans.store import Store
from wheeltap.recipes.base import recipes
from wheeltap.report import jsonfile
from wheeltap.runs import budget, loop, studying
from wheeltap.studies.rules import require_sound

TOML = STUDY.replace("epochs = 4", "epochs = 5")
"""After four passes ten nets leave it undecided."""


def report(path: Path) -> dict[str, Any]:
    """The report in a file, checked against the schema."""
    data = json.loads(path.read_text())
    jsonschema.validate(data, jsonfile.schema())
    return data


def assert_same(first: Path, second: Path) -> dict[str, Any]:
    """Makes sure that two reports say the same; gives the second."""
    one, other = report(first), report(second)
    for part in ("findings", "controls", "study", "headline"):
        assert one[part] == other[part]
    return other


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``mine.toml``, its store, its report, and in a file what was printed."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "mine.toml").write_text(TOML)
    with contextlib.chdir(folder), (folder / "said.txt").open("w") as said, contextlib.redirect_stdout(said):
        assert main(["study", "mine.toml", "--out", "out"]) == 0
    return folder


@pytest.fixture
def here(ran: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(ran)
    return ran


def test_a_study_in_a_file_says_its_answer_first_and_its_verdict_last(ran: Path) -> None:
    lines = (ran / "said.txt").read_text().splitlines()
    assert lines[0] == "Training helps."
    assert len(lines) <= 40 and max(map(len, lines)) <= 80
    data = report(ran / "out" / "report.json")
    assert [rule["margin"] for rule in data["study"]["rules"]] == [0.1]
    assert data["command"] == "study mine.toml" and not data["void"]
    assert (ran / "mine.wheeltap").is_file() and len(list((ran / "mine.wheeltap.made").glob("*"))) >= 20


def test_a_second_time_nothing_is_made_or_measured(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "mine.toml", "--json", "again.json", "--quiet"]) == 0
    assert capsys.readouterr().out == "Training helps.\n"
    first, again = report(here / "out" / "report.json"), report(here / "again.json")
    assert (again["cost"]["trials"], again["cost"]["forwards"]) == (0, 0.0)
    assert again["cost"]["reused"] == first["cost"]["trials"] > 20
    assert [part for part in first if first[part] != again[part]] == ["cost"]


def test_status_and_report_take_a_study(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "mine.wheeltap"]) == 0
    assert main(["report", "mine.wheeltap", "--json", "judged.json"]) == 0
    first, judged = report(here / "out" / "report.json"), report(here / "judged.json")
    assert [part for part in first if first[part] != judged[part]] == ["cost"]
    assert main(["report", "judged.json", "--full"]) == 0
    capsys.readouterr()
    assert main(["report", "judged.json", "wt001"]) == 0
    assert "WT001 trained vs untrained: found" in capsys.readouterr().out


def test_judging_needs_no_torch(here: Path) -> None:
    code = (
        "import sys; from wheeltap.cli import main; main(['report', 'mine.wheeltap', '--html', 'light.html'])\n"
        "main(['status', 'mine.wheeltap']); main(['report', 'mine.wheeltap', 'wt001'])\n"
        "print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=here)
    assert done.stdout.rstrip().endswith("[]")
    assert "Training helps." in done.stdout


def test_a_plan_is_written_and_run_later(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["plan", "study", str(here / "mine.toml"), "-o", "mine.plan.json"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["mine.plan.json"]
    assert main(["run", "mine.plan.json", "--json", "run.json"]) == 0
    assert_same(here / "out" / "report.json", tmp_path / "run.json")
    assert (tmp_path / "mine.wheeltap").is_file()


def test_a_broken_off_study_says_how_far_it_is_and_resumes(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text(TOML)
    asked = plan_of(in_file("mine.toml"), "study mine.toml")

    def stop(state: loop.Progress) -> None:
        if state.done == 4:
            raise KeyboardInterrupt

    store = tmp_path / "mine.wheeltap"
    members = asked.members(studying.folder_of(store))
    with pytest.raises(KeyboardInterrupt):
        loop.run(asked.plan, [], asked.task, store=store, watch=stop, members=members, again="wheeltap study mine.toml")
    assert main(["status", "mine.wheeltap"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "4 of 20 nets are made" in said and "resume with: wheeltap study mine.toml" in said
    assert main(["report", "mine.wheeltap"]) == 2
    assert main(["study", "mine.toml", "--json", "whole.json"]) == 0
    assert assert_same(here / "out" / "report.json", tmp_path / "whole.json")["cost"]["reused"] == 4


@pytest.mark.parametrize(("limit", "made"), [("0.001s", 0), ("0.1f", 20)])
def test_a_budget_stops_a_study_and_cuts_nothing(here: Path, tmp_path: Path, limit: str, made: int) -> None:
    words = ["study", "mine.toml", "--store", str(tmp_path / "s.wheeltap"), "--json", str(tmp_path / "r.json")]
    assert main([*words, "--budget", limit]) == 2
    part = report(tmp_path / "r.json")
    # In the middle of a training, whose state is kept, or after a pass.
    folder = tmp_path / "s.wheeltap.made"
    states = list(folder.glob("*.state.safetensors"))
    assert len(list(folder.glob("*.safetensors"))) - len(states) == made
    assert len(states) in ((0,) if made else (10, 1))  # of the nets that are trained together, or of one
    again = shlex.join(("wheeltap", *words, "--budget", limit))
    assert part["provenance"]["missing_trials"] > 0 and f"again ({again})" in part["headline"]
    assert main(words) == 0
    assert assert_same(here / "out" / "report.json", tmp_path / "r.json")["cost"]["reused"] >= made


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("picturs",), ("no study called 'picturs'", "Did you mean 'pictures'?")),
        (("pictures", "--steps", "0"), ("steps", "expected: int >= 1", "wheeltap list studies")),
        (("mine.toml", "--size", "full"), ("Unknown option", "--size")),
        (("bad.toml",), ("is not a study", "bad.toml")),
        (("mine.toml", "--store", "same", "--json", "same"), ("Two files", "same twice")),
    ],
)
def test_bad_usage(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    (here / "bad.toml").write_text("question = 3")
    assert main(["study", *arguments]) == 2
    said = capsys.readouterr().err
    assert all(word in said for word in words), said


def test_every_setting_of_every_study_is_a_flag_with_its_words() -> None:
    """No flag means two things: a setting that all studies have an option of has the study's name before it."""
    app = application(overview=False)["study"]
    assert {*studies} - {"declared"} <= {*app}
    for name in {*studies} - {"declared"}:
        flags = {one.name: one for one in app[name].assemble_argument_collection()}
        for field in msgspec.structs.fields(studies.get(name).settings_type):
            flag = f"--{field.name}" if field.name == "seed" else study.flag(name, field.name)
            assert flags[flag].parameter.help, (name, field.name)
    assert study.flag("pictures", "size") == "--pictures-size" and study.flag("rlvr", "base_steps") == "--base-steps"


@pytest.mark.parametrize("kind", ["audits", "studies", "recipes"])
def test_whatever_is_listed_is_explained(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    for name in {"audits": audits, "studies": studies, "recipes": recipes}[kind]:
        assert main(["list", kind, name]) == 0, capsys.readouterr().err
        said = capsys.readouterr().out
        assert said.startswith(name) and "NODEFAULT" not in said and "<" not in said.partition("settings")[2], said


def test_the_examples_of_the_docs_are_sound_studies(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "studies.md").read_text()
    for name in ("sam", "plain", "contaminated", "clean"):
        for number in range(12):
            (tmp_path / "runs" / f"{name}-{number}").mkdir(parents=True)
    sizes = list[list[int]]()
    for block in re.findall(r"```toml\n(.*?)```", text, re.DOTALL):
        (tmp_path / "mine.toml").write_text(block)
        spec = in_file(str(tmp_path / "mine.toml")).spec()
        require_sound(spec, alpha=0.05)
        sizes.append([len(cohort.members) for cohort in spec.cohorts])
    assert sizes == [[10, 10], [12, 12], [12, 12]]
    assert all(f"`{statistic}`" in text for statistic in get_args(Statistic))


def test_a_plan_of_a_study_is_not_cut_and_names_the_study_that_is_not_installed(
    here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = plan_of(in_file("mine.toml"), "study mine.toml").plan
    for cut in (budget.least, lambda plan: budget.within(plan, 10.0)):
        with pytest.raises(UsageError, match="its nets and rules are fixed"):
            cut(plan)
    assert plan.study is not None
    other = msgspec.structs.replace(plan, study=msgspec.structs.replace(plan.study, name="elsewhere"))
    with Store(tmp_path / "s.wheeltap") as kept:
        kept.put_plan(other.key, other.to_bytes())
    assert main(["report", str(tmp_path / "s.wheeltap")]) == 2
    assert "'wheeltap.studies'" in capsys.readouterr().err
