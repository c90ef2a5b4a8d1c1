"""A study: do nets that learned wrong labels lose more where the signs of a few weights turn?"""

from wheeltap.audits.case import Case
from wheeltap.core.section import Section, Text
from wheeltap.core.settings import Settings
from wheeltap.core.study import CohortSpec, MemberSpec, Metric, Rule
from wheeltap.studies.base import Study
from wheeltap.studies.measures import AuditMetric
from wheeltap.studies.table import MemberTable


class LabelsSettings(Settings, frozen=True):
    """Nets of each kind."""

    seeds: int = 5


class Labels(Study):
    """Nets trained on wrong labels beside nets trained on right ones, disturbed alike."""

    name = "labels"
    title = "Do nets that learned wrong labels lose more where a few signs turn?"
    settings_type = LabelsSettings
    settings: LabelsSettings
    examples = "digits"

    def cast(self) -> tuple[CohortSpec, ...]:
        """Two cohorts; none of the nets is made yet."""
        return self._kind("wrong labels", 0.5), self._kind("right labels", 0.0)

    def _kind(self, name: str, wrong: float) -> CohortSpec:
        made = (
            MemberSpec(name=f"{name} {at}", recipe="mislabeled", settings={"wrong": wrong}, seed=at)
            for at in range(self.settings.seeds)
        )
        return CohortSpec(name=name, members=tuple(made))

    def metrics(self) -> tuple[Metric, ...]:
        """One number of each net."""
        return (Metric(key="loss", title="Loss by turned signs", unit="accuracy", code="WTX03", ends=(-1.0, 1.0)),)

    def rules(self) -> tuple[Rule, ...]:
        """Fixed before the first net is made: they are part of the plan's key."""
        yes, no = "Wrong labels make nets lose more.", "Wrong labels do not make nets lose more, by 2 points or more."
        return (
            Rule(
                code="WTX03", title="Wrong labels", metric="loss", cohorts=("wrong labels", "right labels"),
                statistic="difference", direction="more", margin=0.02, supports=yes, refutes=no,
            ),
        )  # fmt: skip

    def measures(self) -> tuple[AuditMetric, ...]:
        """Any audit is a measure of a member."""
        return (AuditMetric("loss", "salt", {"dose": 0.1}, estimate="loss"),)

    def sections(self, case: Case, table: MemberTable) -> list[Section]:
        """Shown beside the table."""
        worst = max((table.values("wrong labels", "loss"), table.values("right labels", "loss")), key=max)
        return [Section(title="The worst net", blocks=(Text(text=f"Turned signs cost it {max(worst):.3f}."),))]
