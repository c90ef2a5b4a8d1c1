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

from wheeltap.audits.base import audits, studies
from wheeltap.cli import application, main, study
from wheeltap.cli.progress import planning
from wheeltap.cli.study import in_file, named, plan_of
from wheeltap.core.errors import UsageError
from wheeltap.core.study import Statistic
from wheeltap.plans.store import Store
from wheeltap.recipes.base import recipes
from wheeltap.report import jsonfile
from wheeltap.runs import budget, loop, studying
from wheeltap.runs.pace import Phase, TimeLeft, lasting, making
from wheeltap.studies.rules import require_sound

TOML = """
question = "Do nets that were trained score more than nets that were not?"
examples = "digits"

[cohorts.trained]
recipe = "digits"
settings = { hidden = "12", epochs = 5 }
seeds = 4
about = "Five passes over the training split."

[cohorts.untrained]
recipe = "digits"
settings = { hidden = "12", epochs = 0 }
seeds = 4
role = "compared"

[metrics.score]
audit = "score"

[[rules]]
metric = "score"
cohorts = ["trained", "untrained"]
statistic = "difference"
direction = "more"
margin = 0.1
supports = "Training helps."
refutes = "Training does not help."
"""


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
    last = " ".join(" ".join(lines[-15:]).split())
    assert re.search(r"score: trained vs untrained \S+ \[[^]]+\] above 0\.100 found", last)
    assert "8 nets in 2 cohorts" in last
    assert len(lines) <= 40 and max(map(len, lines)) <= 80
    data = report(ran / "out" / "report.json")
    assert [rule["margin"] for rule in data["study"]["rules"]] == [0.1]
    assert data["command"] == "study mine.toml" and not data["void"]
    assert (ran / "mine.wheeltap").is_file() and len(list((ran / "mine.wheeltap.made").glob("*"))) >= 8


def test_a_second_time_nothing_is_made_or_measured(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "mine.toml", "--json", "again.json", "--quiet"]) == 0
    assert capsys.readouterr().out == "Training helps.\n"
    first, again = report(here / "out" / "report.json"), report(here / "again.json")
    assert (again["cost"]["trials"], again["cost"]["forwards"]) == (0, 0.0)
    assert again["cost"]["reused"] == first["cost"]["trials"] > 8
    assert [part for part in first if first[part] != again[part]] == ["cost"]


def test_status_and_report_take_a_study(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "mine.wheeltap"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "study mine.toml on digits: 8 nets (8 made by recipes) in 2 cohorts, 1 rule" in said
    assert "complete" in said
    assert main(["report", "mine.wheeltap", "--json", "judged.json"]) == 0
    first, judged = report(here / "out" / "report.json"), report(here / "judged.json")
    assert [part for part in first if first[part] != judged[part]] == ["cost"]
    assert main(["report", "judged.json", "--full"]) == 0
    assert "untrained 2 untrained Benchmark score" in " ".join(capsys.readouterr().out.split())
    assert main(["report", "judged.json", "wt001"]) == 0
    assert "WT001 trained vs untrained: found" in capsys.readouterr().out
    assert main(["report", "judged.json", "--html", "judged.html"]) == 0
    read = re.sub(
        rb"<(li|div)>[^\n]*reported in[^\n]*\n", b"", (here / "judged.html").read_bytes(), flags=re.IGNORECASE
    )
    assert read == (here / "out" / "report.html").read_bytes().replace(
        *(report(here / name)["cost"] and _cost(here / page) for name, page in _PAGES)
    )


_PAGES = (("out/report.json", "out/report.html"), ("judged.json", "judged.html"))


def _cost(page: Path) -> bytes:
    found = re.search(rb'<h2 id="s-cost">Cost</h2>\n<p[^>]*>[^<]*</p>', page.read_bytes())
    assert found is not None
    return found[0]


def test_judging_needs_no_torch(here: Path) -> None:
    code = (
        "import sys; from wheeltap.cli import main; main(['report', 'mine.wheeltap', '--html', 'light.html'])\n"
        "main(['status', 'mine.wheeltap']); main(['report', 'mine.wheeltap', 'wt001'])\n"
        "print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=here)
    assert done.stdout.rstrip().endswith("[]")
    assert "Training helps." in done.stdout


def test_a_plan_is_written_and_run_later(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["plan", "study", str(here / "mine.toml"), "-o", "mine.plan.json"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "8 nets (8 made by recipes) in 2 cohorts, 1 rule. Run it: wheeltap run mine.plan.json" in said
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
    assert "4 of 8 nets are made" in said and "resume with: wheeltap study mine.toml" in said
    assert main(["report", "mine.wheeltap"]) == 2
    assert "Unfinished: at least 4 trials have not run" in " ".join(capsys.readouterr().out.split())
    assert main(["study", "mine.toml", "--json", "whole.json"]) == 0
    assert assert_same(here / "out" / "report.json", tmp_path / "whole.json")["cost"]["reused"] == 4


def test_planning_says_how_many_nets_are_drawn_up_and_how_long_the_rest_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text(TOML)
    said, pace = list[str](), TimeLeft()
    studying.planned(in_file("mine.toml"), watch=lambda *state: said.append(planning(pace, "planning", *state)))
    assert said[0] == "planning: nets, 0 of 8"
    assert all(re.fullmatch(rf"planning: nets, {at} of 8, about \d+ s left", said[at]) for at in range(1, 8)), said


def test_a_net_in_the_making_says_how_far_it_is_and_goes_on_where_it_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text(TOML.replace("epochs = 5", "epochs = 60"))
    asked = plan_of(in_file("mine.toml"), "study mine.toml")
    pace, steps, said = TimeLeft(), list[tuple[str, int, int]](), list[str]()

    def stop(state: loop.Progress) -> None:
        said.append(making(pace, state.member, float(len(said))))
        if state.member is not None:
            steps.append((state.member.name, state.member.step, state.member.steps))
            if 0 < state.member.share < 1:
                raise KeyboardInterrupt

    def run(watch: loop.Watch) -> None:
        loop.run(asked.plan, [], asked.task, store=tmp_path / "s", watch=watch, members=asked.members(tmp_path / "m"))

    with pytest.raises(KeyboardInterrupt):
        run(stop)
    name, step, whole = steps[-1]
    taken = step - steps[0][1]
    assert name in ("trained 0 and 3 more", "trained 0")  # where they are trained together, and elsewhere
    assert [one[:2] for one in steps] == [(name, 0), (name, step)]
    assert said[0] == f"making {name}: 0 %"
    share, left = f"{step / whole:.0%}".replace("%", " %"), lasting((whole - step) / taken)
    assert said[1] == f"making {name}: {share}, {left} left"
    steps.clear()
    with pytest.raises(KeyboardInterrupt):
        run(stop)
    assert steps[0] == (name, step, whole)


def test_what_a_watch_raises_in_mid_training_ends_the_run_and_loses_no_member(here: Path, tmp_path: Path) -> None:
    asked = plan_of(in_file("mine.toml"), "study mine.toml")

    def broken(state: loop.Progress) -> None:
        if state.member is not None:
            raise RuntimeError("the watch's own")

    with pytest.raises(RuntimeError, match="the watch's own"):
        loop.run(asked.plan, [], asked.task, store=tmp_path / "s", watch=broken, members=asked.members(tmp_path / "m"))
    with Store(tmp_path / "s", readonly=True) as kept:
        assert kept.count() == {}


@pytest.mark.parametrize(("limit", "made"), [("0.001s", 0), ("0.1f", 8)])
def test_a_budget_stops_a_study_and_cuts_nothing(
    here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], limit: str, made: int
) -> None:
    words = ["study", "mine.toml", "--store", str(tmp_path / "s.wheeltap"), "--json", str(tmp_path / "r.json")]
    assert main([*words, "--budget", limit]) == 2
    part = report(tmp_path / "r.json")
    assert "Unfinished" in capsys.readouterr().out
    # In the middle of a training, whose state is kept, or after a pass.
    folder = tmp_path / "s.wheeltap.made"
    states = list(folder.glob("*.state.safetensors"))
    assert len(list(folder.glob("*.safetensors"))) - len(states) == made
    assert len(states) in ((0,) if made else (4, 1))  # of the nets that are trained together, or of one
    again = shlex.join(("wheeltap", *words, "--budget", limit))
    assert part["provenance"]["missing_trials"] > 0 and f"again ({again})" in part["headline"]
    assert main(words) == 0
    assert assert_same(here / "out" / "report.json", tmp_path / "r.json")["cost"]["reused"] >= made
    assert main([*words, "--budget", "1h"]) == 0
    assert main([*words, "--budget", "soon"]) == 2


def test_progress_counts_nets_first_and_trials_after_that(here: Path, tmp_path: Path) -> None:
    asked = plan_of(in_file("mine.toml"), "study mine.toml")
    phase, seen = Phase(), list[tuple[str, bool, int, int]]()

    began = False

    def watch(state: loop.Progress) -> None:
        nonlocal began
        began = phase.begins(state) or began
        if state.member is None:
            seen.append((phase.unit, began, *phase.of(state)))
            began = False

    loop.run(asked.plan, [], asked.task, store=tmp_path / "s", watch=watch, members=asked.members(tmp_path / "made"))
    nets = [one for one in seen if one[0] == "nets made"]
    trials = seen[len(nets) :]
    assert nets == [("nets made", at == 0, at + 1, 8) for at in range(8)]
    assert trials == [("trials", at == 0, at + 1, len(trials)) for at in range(len(trials))]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("picturs",), ("no study called 'picturs'", "Did you mean 'pictures'?")),
        (("nowhere.toml",), ("no study at this path", "nowhere.toml")),
        (("folder/nowhere",), ("no study at this path", "folder/nowhere")),
        (("declared",), ("named by its file", "wheeltap study FILE.toml")),
        (("pictures", "--stepz", "3"), ("--stepz", "--steps")),
        (("pictures", "--steps"), ("--steps",)),
        (("pictures", "--steps", "many"), ("--steps", "expected a whole number, got many")),
        (("pictures", "--steps", "0"), ("steps", "expected: int >= 1", "wheeltap list studies")),
        (("--seed", "3", "pictures"), ("name of the study", "wheeltap study pictures")),
        (("pictures", "--seeds", "2.5"), ("--seeds", "expected a whole number, got 2.5")),
        (("pictures", "--size", "large"), ("size", "small", "full")),
        (("pictures", "--alpha", ".6"), ("alpha", "0.5")),
        (("mine.toml", "--seeds", "3"), ("Unknown option", "--seeds")),
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


def test_settings_are_as_their_fields_want_them() -> None:
    given = {"seeds": 7, "steps": 12, "effect": 0.2, "controls": "l1"}
    settings = named("pictures", given, size="full", seed=3).settings
    assert (settings.seeds, settings.seed, settings.steps, settings.effect) == (7, 3, 12, 0.2)
    assert (settings.controls, settings.size) == ("l1", 64)
    small = named("pictures")
    usual = type(small).sized("small")
    assert {name: getattr(small.settings, name) for name in usual} == usual


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


def test_studies_and_recipes_are_listed_and_explained(capsys: pytest.CaptureFixture[str]) -> None:
    for words, said in (
        (["studies"], "pictures"), (["recipes"], "classifier"), (["studies", "pictures"], "control_seeds"),
        (["recipes", "picture"], "share"),
    ):  # fmt: skip
        assert main(["list", *words]) == 0
        assert said in capsys.readouterr().out
    assert main(["list", "recipes", "pictur"]) == 2
    assert "Did you mean 'picture'?" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["audits", "studies", "recipes"])
def test_whatever_is_listed_is_explained(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    for name in {"audits": audits, "studies": studies, "recipes": recipes}[kind]:
        assert main(["list", kind, name]) == 0, capsys.readouterr().err
        said = capsys.readouterr().out
        assert said.startswith(name) and "NODEFAULT" not in said and "<" not in said.partition("settings")[2], said


def test_a_default_of_several_words_is_listed_whole(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "audits", "relearning"]) == 0
    lines = capsys.readouterr().out.splitlines()
    first = next(at for at, line in enumerate(lines) if line.startswith("attacks "))
    end = next(at for at, line in enumerate(lines) if line.startswith("attack_steps "))
    left, right = lines[end].index("32"), lines[first].index("Ways to bring")
    listed = "".join(line[left:right].strip() for line in lines[first:end])
    usual = {field.name: field.default for field in msgspec.structs.fields(audits.get("relearning").settings_type)}
    assert listed == ",".join(usual["attacks"])


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


QUICK = ("--seeds", "2", "--control-seeds", "1", "--controls", "abs-x,l1", "--pictures-size", "16", "--steps", "3")


@pytest.mark.release
def test_the_folder_of_a_study_of_pictures_has_the_explorer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["study", "pictures", "--picture", "scene", *QUICK]
    assert main([*words, "--out", "scene", "--fail-on", "never"]) in (0, 3)
    assert "Written: scene/report.html" in " ".join(capsys.readouterr().out.split())
    assert {path.name for path in (tmp_path / "scene").iterdir()} == {"report.html", "report.json", "explorer.html"}
    data = report(tmp_path / "scene" / "report.json")
    assert data["command"] == "study pictures"
    sizes = {cohort["name"]: len(cohort["members"]) for cohort in data["study"]["cohorts"]}
    assert sizes == {"scene": 1, "sgd": 2, "untrained": 2, "l1": 1}  # the scene has no symmetry
    main([*words, "--json", "same.json"])
    assert report(tmp_path / "same.json")["cost"]["trials"] == 0


@pytest.mark.parametrize(
    ("words", "instead"),
    [
        (("fer", "--picture", "face", "--seeds", "1"), "wheeltap study pictures"),
        (("pictures", "fetch"), "wheeltap study pictures --genome FILE"),
        (("judge", "s.wheeltap"), "wheeltap report STORE"),
        (("show", "s.wheeltap", "WT001"), "wheeltap report FILE CODE"),
    ],
)
def test_a_verb_that_is_no_more_names_the_one_that_does_the_same(
    words: tuple[str, ...], instead: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    said = capsys.readouterr().err
    assert f"no verb {words[0]}" in said and instead in said


def test_a_study_is_no_model_to_plan_for(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("mine.toml", "pictures"):
        assert main(["plan", name]) == 2
        assert f"wheeltap plan study {name} -o FILE" in capsys.readouterr().err


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
    said = capsys.readouterr().err
    assert "The study 'elsewhere' that this was run with is not installed" in said
    assert "'wheeltap.studies'" in said and "Install that package" in said
