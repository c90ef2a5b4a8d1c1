"""Studies that could come out only one way, or not at all, are refused before anything is made."""

import msgspec
import pytest

from wheeltap.core.errors import UnknownName, UsageError
from wheeltap.core.study import Cohort, Metric, Rule, StudySpec
from wheeltap.studies.rules import require_sound

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


def test_how_many_members_would_do_is_said() -> None:
    few = tuple(Cohort(name=name, members=(f"{name}1", f"{name}2")) for name in "ab")
    rule = msgspec.structs.replace(RULE, statistic="auc")
    spec = msgspec.structs.replace(SPEC, cohorts=few, rules=(rule,))
    with pytest.raises(UsageError, match="Give 3 more members in each cohort of several"):
        require_sound(spec, alpha=0.05)
    with pytest.raises(UsageError, match="Give --seeds 5 or more"):
        require_sound(msgspec.structs.replace(spec, settings={"seeds": 2}), alpha=0.05)
    enough = tuple(Cohort(name=name, members=tuple(f"{name}{at}" for at in range(5))) for name in "ab")
    require_sound(msgspec.structs.replace(spec, cohorts=enough), alpha=0.05)


UNKNOWN: list[tuple[dict[str, object], str]] = [
    ({"metric": "xx"}, "x"),
    ({"cohorts": ("a", "bb")}, "b"),
    ({"statistic": "diference"}, "difference"),
    ({"statistic": "association", "with_metric": "yy"}, "y"),
    ({"beyond": ("z",)}, "y"),
]
DEAD: list[dict[str, object]] = [
    {"margin": 1.0},  # no two shares differ by more
    {"cohorts": ("one", "b")},  # one net has no spread
    {"statistic": "one_of"},  # three nets are not one
    {"statistic": "paired", "cohorts": ("a", "one")},
    {"statistic": "auc"},  # three against three never reach .05
    {"statistic": "mean"},  # of two cohorts
    {"statistic": "mean", "cohorts": ("a",), "margin": 1.0},  # no share is more
    {"statistic": "added", "beyond": ("y",)},  # three against three never reach .05
]


def test_what_is_not_known_is_named_with_the_nearest_and_dead_rules_are_refused() -> None:
    for fields, hint in UNKNOWN:
        with pytest.raises(UnknownName) as caught:
            require_sound(changed(**fields), alpha=0.05)
        assert hint in str(caught.value)
    for fields in DEAD:
        with pytest.raises(UsageError) as caught:
            require_sound(changed(**fields), alpha=0.05)
        assert caught.value.got, fields
    with pytest.raises(UsageError, match="with_metric"):
        require_sound(changed(statistic="association", cohorts=("c",)), alpha=0.05)


def test_names_given_twice_no_rules_and_members_in_common_are_refused() -> None:
    same, twice = msgspec.structs.replace(RULE, direction="less"), Cohort(name="a", members=("m", "m"))
    shared = Cohort(name="e", members=("a1", "e2", "e3"))
    compared = msgspec.structs.replace(changed(cohorts=("a", "e")), cohorts=(*SPEC.cohorts, shared))
    for wrong, says in (
        (msgspec.structs.replace(SPEC, cohorts=(SPEC.cohorts[0], SPEC.cohorts[0])), "A cohort is named twice"),
        (msgspec.structs.replace(SPEC, metrics=(SPEC.metrics[0], SPEC.metrics[0])), "A metric is named twice"),
        (msgspec.structs.replace(SPEC, rules=()), "no rule"),
        (msgspec.structs.replace(SPEC, cohorts=(twice, *SPEC.cohorts[1:])), "A member is named twice"),
        (msgspec.structs.replace(SPEC, rules=(RULE, same)), "A rule is named twice"),
        (compared, "share no member"), (changed(cohorts=("a", "a")), "share no member"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=says):
            require_sound(wrong, alpha=0.05)
    named = msgspec.structs.replace(SPEC, rules=(RULE, msgspec.structs.replace(same, title="U")))
    require_sound(named, alpha=0.05)
