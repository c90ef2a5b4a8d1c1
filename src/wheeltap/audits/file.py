"""WT003: a file as it is shipped, tensor by tensor beside the original that it was made from; no pass is made."""

from typing import final

import msgspec

from wheeltap.audits.base import Audit, Case, Hypothesis, NoAnswer, Verdict
from wheeltap.audits.claims import Words
from wheeltap.audits.schemes import schemes
from wheeltap.core.plain import many
from wheeltap.core.records import Estimate, Trial
from wheeltap.core.section import Cell, Section, Table
from wheeltap.core.settings import Settings
from wheeltap.plans.plan import Plan
from wheeltap.plans.shipped import UNJUDGED, UNKNOWN, ShippedFile, TensorRow, rows_of

WORDS = Words("damaged", "as its formats give", "measured")

_DO = "Do not ship it: convert the original again."

_SHOWN = 3
"""Tensors that a sentence names."""

_LISTED = 40
"""Rows of the table of a file: those with a fault first, then those that are farthest beyond their format."""


class FileSettings(Settings, frozen=True, kw_only=True):
    """Which files.

    Attributes:
        files: As they were asked for, with commas between: ``gguf:FILE,hf:FOLDER``.
        known: What the plan found out of them, and of those that are schemes of the audit ``deployment``.
    """

    files: str = ""
    known: str = ""

    def __post_init__(self) -> None:
        if self.files:
            schemes(self.files)
        if self.known:
            try:
                msgspec.json.decode(self.known, type=tuple[ShippedFile, ...])
            except msgspec.DecodeError as error:
                raise ValueError(f"`known` is what a plan found of files: {error}") from error


@final
class FileAudit(Audit):
    """Whether each tensor of a file is what its format makes of the original's; part of every plan about files."""

    name = "file"
    code = "WT003"
    title = "File against original"
    reads = (
        "Every tensor of the file is compared with the original's, after what converters do to it, and its error is"
        " held against that of our own rounding to the same format. No pass is made; a score need not show a fault."
    )
    asks = "file"
    settings_type = FileSettings

    def files(self) -> tuple[str, ...]:
        """Those of its settings; schemes that are no files are not looked at."""
        asked = schemes(self.settings.files) if self.settings.files else ()
        return tuple(one.name for one in asked if one.shipped)

    def ask(self, case: Case) -> list[Trial]:
        """A look at each file."""
        return [case.plan.ship(file, "weights") for file in case.plan.files]

    def most_passes(self, plan: Plan) -> float:
        """None: nothing is run."""
        return 0.0

    def judge(self, case: Case) -> Verdict:
        """One finding for each file, and its tensors in a table."""
        verdict = Verdict()
        if not case.plan.files:
            gap = NoAnswer("not_applicable", "No file that was made from the model is named (--for gguf:FILE).")
            verdict.drafts.append(self.unanswered(case.plan.reference.name, gap))
        for file in case.plan.files:
            draft, rows = self._of(case, file)
            verdict.drafts.append(draft)
            if rows:
                verdict.sections.append(_section(file, rows))
        return verdict

    def _of(self, case: Case, file: ShippedFile) -> tuple[Hypothesis, list[TensorRow]]:
        """The finding on one file and its tensors, the worst ones first."""
        name, label = case.plan.reference.name, schemes(file.spec)[0].label
        trial, title = case.plan.ship(file, "weights"), f"{self.title}: {label}"
        differences = "".join(f"\n\nWarning: {label}: {text}" for text in file.differs)
        try:
            rows = rows_of(case.reading(trial))
        except NoAnswer as error:
            return self.unanswered(name, NoAnswer("error", f"{label}: {error.because}{differences}"), title=title), []
        rows.sort(key=lambda row: (row.fault in UNJUDGED, -row.excess))
        wrong = [row for row in rows if row.fault not in UNJUDGED]
        compared = [row for row in rows if row.fault != "uncompared"]
        numbers = (
            Estimate.exact("tensors", float(len(compared)), "tensors"),
            Estimate.exact("damaged tensors", float(len(wrong)), "tensors"),
            Estimate.exact("largest error", max((row.error for row in rows), default=0.0), "share of ||original||"),
            Estimate.exact("not compared", _uncompared(rows), "share of the original's numbers"),
            *(Estimate.exact(f"error of {row.name}", row.error, "share of ||original||")
              for row in wrong[:_SHOWN] if row.error != UNKNOWN),
        )  # fmt: skip
        if wrong:
            named = [f"{row.name}{f' ({row.format})' if row.format else ''} {describe(row)}" for row in wrong[:_SHOWN]]
            more = f"; and {len(wrong) - _SHOWN} more tensors" if len(wrong) > _SHOWN else ""
            status, brief = "found", f"{label}: {'; '.join(named)}{more}. {_DO}{_left(rows)}"
        else:
            status = "measured" if any(row.fault != "sound" for row in rows) else "excluded"
            brief = f"{label}: {_sound(rows)}"
        claim = Hypothesis(
            test=None, status=status, found=f"{brief}{differences}", brief=brief, beside=numbers, words=WORDS,
            title=title,
        )  # fmt: skip
        return self.draft(case, name, claim, [trial]), rows


def _sound(rows: list[TensorRow]) -> str:
    """Describe a file without a fault."""
    compared = [row for row in rows if row.fault != "uncompared"]
    if not compared:
        return f"0 of {many(len(rows), 'tensor')} could be compared with a weight of the original."
    kinds, left = ", ".join(sorted({row.format for row in compared})), _left(rows)
    if any(row.fault == "unknown" for row in compared):
        return (
            f"no rule says what its format ({kinds}) should give. {many(len(compared), 'tensor')} compared: the largest"
            f" error is {max(row.error for row in compared):.2g} of the original.{left}"
        )
    which = "the" if left else "all"
    return f"{which} {many(len(compared), 'tensor')} are what their formats ({kinds}) make of the original's.{left}"


def _left(rows: list[TensorRow]) -> str:
    """Name the weights of the original that were not compared, as a sentence; empty if there are none."""
    rest = [row.name for row in rows if row.fault == "uncompared"]
    named = f"{many(len(rest), 'weight')}, {rest[0]} among them" if rest else ""
    return f" Not compared: {_uncompared(rows):.1%} of the original ({named})." if rest else ""


def _uncompared(rows: list[TensorRow]) -> float:
    """Fraction of the original's numbers that were not compared."""
    return sum(row.fraction for row in rows if row.fault == "uncompared" and row.fraction != UNKNOWN)


def describe(row: TensorRow) -> str:
    """Describe the state of a tensor, as the end of a sentence that begins with its name."""
    usual = f", where its format gives {row.expected:.2g}" if row.expected != UNKNOWN else ""
    return {
        "missing": "is missing",
        "unread": "belongs to no weight of the original",
        "shape": "has another shape than the original's",
        "not finite": "holds numbers that are not finite",
        "error": f"has an error of {row.error:.2g} of the original{usual}"
        if row.error != UNKNOWN
        else "holds numbers that are not positive: it scales activations",
        "uncompared": "could not be compared",
    }.get(row.fault, "is as it should be")


def _section(file: ShippedFile, rows: list[TensorRow]) -> Section:
    """Table of a file's tensors: faults first, then uncompared ones, then by error beyond the format's."""
    ordered = sorted(rows, key=lambda row: (row.fault in UNJUDGED, row.fault != "uncompared"))
    cells = tuple(
        (
            Cell(row.name, tone="quiet" if row.fault in UNJUDGED else "alarm"), row.format,
            *("" if value == UNKNOWN else f"{value:.4g}" for value in (row.error, row.expected)),
            "" if row.fault == "unknown" else describe(row),
        )
        for row in ordered[:_LISTED]
    )  # fmt: skip
    left = len(rows) - len(cells)
    says = f"Error is ||file - original|| / ||original||.{f' {left} more tensors show no fault.' if left else ''}"
    table = Table(title=says, heads=("tensor", "format", "error", "its format gives", ""), rows=cells)
    return Section(title=f"Tensors of {schemes(file.spec)[0].label}", blocks=(table,))
