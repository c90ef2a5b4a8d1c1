"""Numbers, rules and controls of the study ``detection``."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, final

from wheeltap.audits.base import Audit
from wheeltap.audits.power import WANTED
from wheeltap.core.records import Control, Estimate, Finding
from wheeltap.core.study import Metric, Rule
from wheeltap.plans.defects import DEFECTS
from wheeltap.stats.members import Single, exact
from wheeltap.studies.rules import WORST, listed
from wheeltap.studies.table import Table

SOUND, BASES = "sound copies", "originals"
"""Names of cohorts."""

SCORE, ANY, SAME = "score", "any", "same"
"""Metrics that are of no single audit."""

CHEAP: Final = ("WT001", "WT701")
"""What costs no look at the weights: outputs, and disturbed inputs."""

LEAST: Final = 0.02
"""Smallest gain in AUC of interest."""

ALARMS: Final = 0.05
"""Share of sound copies of which something may be found by chance."""

FEWEST: Final = 12
"""Copies from which it is judged what weights add: with fewer not even a perfect detector would be found."""

_GRAIN: Final = 0.01
"""Share of the smallest difference of interest to which a difference is rounded."""


@final
@dataclass(frozen=True)
class Planted:
    """A defect at a strength."""

    defect: str
    strength: float

    def __str__(self) -> str:
        return f"{self.defect} {self.strength:g}"


def found(code: str) -> str:
    """Key of the metric that says whether a code was found."""
    return f"{code} found"


def to_the_grain(number: Single, finding: Finding) -> Single:
    """A difference without what another order of the same sums makes of it, by which copies differ too."""
    step = _GRAIN * (finding.margin or 0.0)
    return number if step == 0.0 else replace(number, value=step * round(number.value / step))


def metrics(kinds: Sequence[type[Audit]]) -> tuple[Metric, ...]:
    """The score; what was found at all; of each audit the effect on a pair, and whether it was found."""
    score = Metric(key=SCORE, title="Score", unit="", code="WT001", reads="What a benchmark would print.")
    same = Metric(
        key=SAME, title="Same outputs as the original", unit="share", code="WT001", ends=(0.0, 1.0), toward="high",
        reads="Whether outputs differ by no more than rounding.",
    )  # fmt: skip
    some = Metric(
        key=ANY, title="Distinguished from the original", unit="share", ends=(0.0, 1.0),
        reads="Whether a comparison with the original found anything, after one correction over all its tests.",
    )  # fmt: skip
    each: list[Metric] = []
    for kind in kinds:
        title = kind.brief or kind.title
        each.append(
            Metric(key=kind.code, title=f"{title}: difference", unit="", code=kind.code, reads=kind.reads)
        )  # fmt: skip
        each.append(
            Metric(
                key=found(kind.code), title=f"{title}: found", unit="share", code=kind.code, ends=(0.0, 1.0),
                reads="Whether a comparison with the original found a difference.",
            )
        )  # fmt: skip
    return (score, same, some, *each)


def rules(planted: Sequence[Planted], kinds: Sequence[type[Audit]], *, copies: int, shift: bool) -> tuple[Rule, ...]:
    """What weights add for each defect, where there are copies enough; and that sound copies are not called different.

    Args:
        planted: Each defect at the strength that is judged.
        kinds: Audits of weights.
        copies: Of each kind.
        shift: Whether inputs are disturbed too.
    """
    alarms = Rule(
        code="WT101", title="False alarms", metric=ANY, cohorts=(SOUND,), statistic="exact", direction="more",
        margin=ALARMS, share=ALARMS, alarm=True,
        supports=f"Sound copies are distinguished from the original more often than in {ALARMS:.0%} of comparisons.",
        refutes=f"Sound copies are distinguished from the original in no more than {2 * ALARMS:.0%} of comparisons.",
    )  # fmt: skip
    if copies < FEWEST:
        return (alarms,)
    cheap = CHEAP if shift else CHEAP[:1]
    beside = "outputs and disturbed inputs" if shift else "outputs"
    added = [
        Rule(
            code=kind.code, title=f"{kind.brief or kind.title} shows {one.defect}", metric=kind.code,
            cohorts=(str(one), SOUND), statistic="added", direction="more", margin=LEAST, beyond=cheap, within=True,
            supports=f"{kind.brief or kind.title} shows {DEFECTS[one.defect].title} that {beside} do not.",
            refutes=f"{kind.brief or kind.title} adds nothing to {beside} on {DEFECTS[one.defect].title}: "
            f"less than {LEAST:g} AUC.",
        )
        for one in planted
        for kind in kinds
    ]  # fmt: skip
    return (*added, alarms)


def headline(planned: Sequence[Rule], findings: Sequence[Finding], table: Table) -> str:
    """Which defects weights show beyond what is cheap, by which audits; and how many sound copies were alarms."""
    said = {(one.code, one.title): one.status for one in findings}
    told: list[str] = []
    for cohort in dict.fromkeys(rule.cohorts[0] for rule in planned if rule.statistic == "added"):
        mine = [rule for rule in planned if rule.statistic == "added" and rule.cohorts[0] == cohort]
        beside = "outputs and disturbed inputs" if len(mine[0].beyond) > 1 else "outputs"
        shown = [rule.code for rule in mine if said.get((rule.code, rule.title)) == "found"]
        rest = [rule.code for rule in mine if rule.code not in shown]
        told += [f"{cohort}: {listed(shown)} {'add' if len(shown) > 1 else 'adds'} to {beside}."] if shown else []
        told += [f"{'No' if shown else f'{cohort}: no'} evidence of added value of {listed(rest)}."] if rest else []
    alarms = table.values(SOUND, ANY)
    if not told:
        told = [f"What weights add is judged with {FEWEST} copies or more, and was not."]
    return " ".join([*told, f"Sound copies distinguished from their originals: {sum(alarms):.0f} of {len(alarms)}."])


def same_function(table: Table) -> Control:
    """Every copy must compute what its original computes, or a difference would be no news."""
    name = "every copy computes what its original computes"
    values = [value for cohort in table.cohorts for value in table.values(cohort.name, SAME)]
    if not values:
        return Control(name=name, kind="gate", status="skipped", because="No copy was compared.")
    other = sum(value == 0.0 for value in values)
    return Control(
        name=name, kind="gate", status="failed" if other else "passed",
        estimates=(Estimate.exact("copies_that_differ", float(other), "copies", n=len(values)),),
        because=f"The outputs of {len(values) - other} of {len(values)} copies differ from the original's by no more "
        "than rounding.",
    )  # fmt: skip


def plants_found(table: Table, planted: Sequence[Planted]) -> Control:
    """The strongest plants must be found by something, or nothing can be concluded of weaker ones."""
    strongest = {one.defect: one for one in planted}
    shares: dict[str, float] = {}
    for one in strongest.values():
        values = table.values(str(one), ANY)
        if values:
            shares[str(one)] = sum(values) / len(values)
    name = "a planted defect is found"
    if not shares:
        return Control(name=name, kind="planted", status="skipped", because="No planted copy was compared.")
    best = max(shares, key=lambda one: shares[one])
    values = table.values(best, ANY)
    share = exact(round(sum(values)), len(values), share=WANTED, name="largest_share_found")
    below = share.above(0.0, "less")
    shown = below is not None and below < WORST
    listed_shares = ", ".join(f"{one} {share:.0%}" for one, share in shares.items())
    return Control(
        name=name, kind="planted", status="passed" if shares[best] >= WANTED else "failed" if shown else "skipped",
        estimates=(share.estimate,),
        because=f"Copies with the strongest plants that were distinguished from the original: {listed_shares}; of one "
        f"defect it should be at least {WANTED:.0%}. It fails where it is shown to be less (p below {WORST:g}); in "
        "between, more draws, more copies or a stronger plant would decide.",
    )  # fmt: skip


def codes(table: Table) -> list[str]:
    """Of the audits that a table has."""
    keys = [metric.key for metric in table.metrics]
    return [key for key in keys if found(key) in keys]


def notes(table: Table, planted: Sequence[Planted], *, shift: bool) -> tuple[str, ...]:
    """How often each kind was found, by what; and at what cost."""
    kinds = [*(str(one) for one in planted), SOUND]
    cost = "Disturbed inputs were given at least as many passes as any of the disturbances of weights."
    if not shift:
        cost = "Inputs were not disturbed, so weights are compared with outputs alone."
    elif not any(table.values(kind, CHEAP[1]) for kind in kinds):
        cost = (
            "These inputs could not be disturbed, so it is not known what weights add. With --set shift=false they are "
            "compared with outputs alone."
        )
    return (cost, *(_line(table, kind) for kind in kinds))


def _line(table: Table, cohort: str) -> str:
    counts = {code: table.values(cohort, found(code)) for code in codes(table)}
    seen = [f"{code} {sum(values):.0f}" for code, values in counts.items() if sum(values)]
    whole = max((len(values) for values in counts.values()), default=0)
    return f"Found of {whole} {cohort}: {listed(seen) if seen else 'none'}."
