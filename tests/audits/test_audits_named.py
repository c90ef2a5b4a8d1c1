"""Settings that name a group, unit, factor or layer that there is not are refused when a plan is made."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

import wheeltap as wt
from wheeltap.core.errors import UsageError
from wheeltap.models.mlp import mlp
from wheeltap.recipes.randomness import reproducible

EXAMPLES = 60

WRONG: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("parts", {"units": "0:1,8"}, "no unit 8 in the hidden layer '0'"),
    ("parts", {"units": "hiden:0"}, r"no hidden layer called 'hiden'\.(?s:.*)Choose one of: 0"),
    ("parts", {"units": "0:0,1,2,3,4,5,6,7"}, "no part of the model"),
    ("parts", {"behaviour": 9}, "No example belongs to the behaviour 9"),
    ("decodable", {"factors": "evn"}, r"no factor called 'evn'\.(?s:.*)Did you mean 'even'"),
    ("decodable", {"layers": "0,7"}, "no module called '7'"),
    ("fine-tuning", {"group": 9}, "The task has no behavior 9"),
    ("relearning", {"group": 9}, "The task has no behavior 9"),
)


def net(name: str, widths: tuple[int, ...] = (5, 8, 3)) -> wt.Subject:
    with reproducible(0):
        return wt.Subject(mlp(widths).eval(), name=name)


@pytest.fixture(scope="module")
def task() -> wt.Task:
    inputs = torch.randn((EXAMPLES, 5), generator=torch.Generator().manual_seed(0))
    made = wt.Task(inputs, torch.arange(EXAMPLES) % 3)
    return made.with_factors({"even": torch.arange(EXAMPLES) % 2})


@pytest.mark.parametrize(("audit", "settings", "words"), WRONG)
def test_what_there_is_not_is_refused_before_anything_runs(
    audit: str, settings: dict[str, Any], words: str, task: wt.Task, tmp_path: Path
) -> None:
    store, asked = tmp_path / "a.wheeltap", [wt.AuditSpec(name=audit, settings=settings)]
    with pytest.raises(UsageError, match=words):
        wt.plan(net("a"), task, audits=asked)
    with pytest.raises(UsageError, match=words):
        wt.audit(net("a"), task, audits=asked, store=store)
    with pytest.raises(UsageError, match=words):
        wt.compare(net("a"), net("b", (5, 9, 3)), task, audits=asked, store=store)
    changed = msgspec.structs.replace(wt.plan(net("a"), task, audits=["score"]), audits=tuple(asked))
    with pytest.raises(UsageError, match=words):
        wt.run(changed, net("a"), task, store=store)
    assert not store.exists()


def test_what_there_is_is_planned_and_every_subject_is_asked(task: wt.Task) -> None:
    """Of the last two the first has a unit 8, the second has not."""
    right = (("parts", {"units": "0:1,7", "behaviour": 2}), ("decodable", {"factors": "even", "layers": "0"}))
    groups = (("fine-tuning", {"group": 2}), ("relearning", {"group": 1}), ("relearning", {}))
    asked = [wt.AuditSpec(name=audit, settings=settings) for audit, settings in (*right, *groups)]
    assert len(wt.plan([net("a"), net("b", (5, 9, 3))], task, audits=asked).audits) == len(asked) + 1, "and the census"
    with pytest.raises(UsageError, match="no unit 8") as error:
        wt.plan([net("wide", (5, 9, 3)), net("narrow")], task, audits=[wt.AuditSpec("parts", {"units": "0:8"})])
    assert error.value.where == "narrow"


PLUG_IN = '''
"""A reading of another package, whose settings name a subject."""

from typing import final

import numpy as np

from wheeltap.audits.base import Hypothesis
from wheeltap.audits.reading_audit import SingleReadingAudit
from wheeltap.core.errors import UnknownName
from wheeltap.core.settings import Settings
from wheeltap.engine.readings.base import Reading, Readings
from wheeltap.plans.readings import Array, ReadingSpec


class CountSettings(Settings, frozen=True, kw_only=True):
    """Whose examples are counted, and whether an array is given that the spec does not have."""

    whose: str = "a"
    more: bool = False


SPEC = ReadingSpec(
    name="count", title="Examples", settings_type=CountSettings, arrays={"examples": Array("", "how many", "count")}
)


@final
class Count(Reading):
    spec = SPEC

    def require(self, subject, task):
        if self.settings.whose != subject.name:
            raise UnknownName("subject", self.settings.whose, [subject.name])

    def read(self, subject, task, *, root, seed):
        more = {"all": np.ones(3)} if self.settings.more else {}
        return Readings({"examples": np.array(len(task.targets)), **more}, forwards=0.0)


@final
class CountAudit(SingleReadingAudit):
    name = "count"
    code = "XX001"
    title = "Examples"
    settings_type = CountSettings
    reading = SPEC

    def passes(self, plan, subject):
        return 0.0

    def parsed(self, case, subject, read):
        return int(read["examples"])

    def singles(self, case, subject, read):
        return [Hypothesis(test=None, found=f"{subject.name} is asked {read} things.", status="excluded", alarm=False)]
'''


USE = """
import torch
import wheeltap as wt
from wheeltap.core.errors import UnknownName
from wheeltap.models.mlp import mlp

task = wt.Task(torch.arange(300.0).reshape(60, 5).sin(), torch.arange(60) % 3)
net = {name: wt.Subject(mlp((5, 8, 3)).eval(), name=name) for name in "ab"}
for settings in ({}, {"more": True}):
    [found] = wt.audit(net["a"], task, audits=[wt.AuditSpec("count", settings)])["XX001"]
    print(found.status, found.because)
try:
    wt.audit(net["b"], task, audits=["count"])
except UnknownName as error:
    print(error.what)
"""


@pytest.mark.full
def test_a_reading_of_another_package_is_held_to_its_spec_and_refuses_as_well(tmp_path: Path) -> None:
    (tmp_path / "counting_plug_in.py").write_text(PLUG_IN)
    points = "[wheeltap.readings]\ncount = counting_plug_in:Count\n"
    points += "[wheeltap.audits]\ncount = counting_plug_in:CountAudit\n"
    about = tmp_path / "counting_plug_in-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: counting-plug-in\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(points)
    paths = os.pathsep.join([str(tmp_path), str(Path(wt.__file__).parents[1])])
    done = subprocess.run(
        [sys.executable, "-c", USE], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    asked, misread, refused = done.stdout.splitlines()
    assert asked == f"excluded a is asked {EXAMPLES} things."
    assert misread.startswith("error ") and "count declares no array 'all'" in misread
    assert refused == "There is no subject called 'a'."
