"""Studies that could come out only one way, or not at all, are refused before anything is made."""

import msgspec
import pytest

from wheeltap.core.errors import UnknownName, UsageError
from wheeltap.core.study import Cohort, Metric, Rule, StudySpec
from wheeltap.studies.sound import require_sound

RULE = Rule(
    code="WTX09", title="T", metric="x", cohorts=("a", "b"), statistic="difference", direction="more", margin=0.1
)
SPEC = StudySpec(
    name="s", version=1, settings={},
    cohorts=(Cohort(name="a", members=("a1", "a2", "a3")), Cohort(name="b", members=("b1", "b2", "b3")),
             Cohort(name="one", members=("o",)),
             *(Cohort(name=name, members=tuple(f"{name}{at}" for at in range(8))) for name in "cd")),
    metrics=(Metric(key="x", title="X", unit="", ends=(0.0, 1.0)), Metric(key="y", title="Y", unit="", log=True)),
    rules=(RULE,),
)  # fmt: skip


def changed(**fields: object) -> StudySpec:
    return msgspec.structs.replace(SPEC, rules=(msgspec.structs.replace(RULE, **fields),))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"statistic": "mean", "cohorts": ("a",)},
        {"statistic": "mean", "cohorts": ("one",)},
        {"statistic": "added", "beyond": ("y",), "cohorts": ("c", "d")},
        {"statistic": "added", "beyond": ("y",), "cohorts": ("c", "d"), "within": True},
    ],
)
def test_a_sound_study_is_taken(fields: dict[str, object]) -> None:
    require_sound(changed(**fields), alpha=0.05)


@pytest.mark.parametrize(
    ("fields", "hint"),
    [
        ({"metric": "xx"}, "x"),
        ({"cohorts": ("a", "bb")}, "b"),
        ({"statistic": "diference"}, "difference"),
        ({"statistic": "association", "with_metric": "yy"}, "y"),
        ({"beyond": ("z",)}, "y"),
    ],
)
def test_what_is_not_known_is_named_with_the_nearest(fields: dict[str, object], hint: str) -> None:
    with pytest.raises(UnknownName) as caught:
        require_sound(changed(**fields), alpha=0.05)
    assert hint in str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"margin": 1.0},  # no two shares differ by more
        {"cohorts": ("one", "b")},  # one net has no spread
        {"cohorts": ("a",)},
        {"statistic": "one_of"},  # three nets are not one
        {"statistic": "paired", "cohorts": ("a", "one")},
        {"statistic": "association", "cohorts": ("a",), "with_metric": "y"},  # three members
        {"statistic": "exact", "cohorts": ("a",), "margin": 0.5},
        {"statistic": "auc"},  # three against three never reach .05
        {"metric": "y", "relative": True},
        {"statistic": "mean"},  # of two cohorts
        {"statistic": "mean", "cohorts": ("a",), "margin": 1.0},  # no share is more
        {"statistic": "mean", "cohorts": ("a",), "metric": "y"},  # 0 is no ratio
        {"statistic": "mean", "cohorts": ("a",), "relative": True},
        {"statistic": "added"},  # to nothing
        {"statistic": "added", "beyond": ("y",)},  # three against three never reach .05
        {"statistic": "added", "beyond": ("y",), "cohorts": ("a", "one"), "within": True},
        {"statistic": "added", "beyond": ("y",), "cohorts": ("c", "d"), "relative": True},
    ],
)
def test_dead_rules_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(UsageError) as caught:
        require_sound(changed(**fields), alpha=0.05)
    assert caught.value.got


def test_names_given_twice_and_no_rules_are_refused() -> None:
    twice = (SPEC.cohorts[0], SPEC.cohorts[0])
    for wrong in (
        msgspec.structs.replace(SPEC, cohorts=twice),
        msgspec.structs.replace(SPEC, metrics=(SPEC.metrics[0], SPEC.metrics[0])),
        msgspec.structs.replace(SPEC, rules=()),
        msgspec.structs.replace(SPEC, cohorts=(Cohort(name="a", members=("m", "m")), *SPEC.cohorts[1:])),
    ):
        with pytest.raises(UsageError):
            require_sound(wrong, alpha=0.05)
