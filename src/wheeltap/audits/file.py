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
        name, label = case.plan.reference.name, schemes(file.spec)[0].label
        trial = case.plan.ship(file, "weights")
        beside = "".join(f"\n\nWarning: {label}: {one}" for one in file.differs)
        try:
            rows = rows_of(case.reading(trial))
        except NoAnswer as gap:
            title = f"{self.title}: {label}"
            return self.unanswered(name, NoAnswer("error", f"{label}: {gap.because}{beside}"), title=title), []
        wrong = [row for row in rows if row.fault not in UNJUDGED]
        compared = [row for row in rows if row.fault != "uncompared"]
        numbers = (
            Estimate.exact("tensors", float(len(compared)), "tensors"),
            Estimate.exact("damaged tensors", float(len(wrong)), "tensors"),
            Estimate.exact("largest error", max((row.error for row in rows), default=0.0), "share of ||original||"),
            Estimate.exact("not compared", _share(rows), "share of the original's numbers"),
        )
        if wrong:
            named = [f"{row.name}{_kind(row)} {said(row)}" for row in wrong[:_SHOWN]]
            more = f"; and {len(wrong) - _SHOWN} more tensors" if len(wrong) > _SHOWN else ""
            brief = f"{label}: {'; '.join(named)}{more}. {_DO}{_left(rows)}"
            status, found = "found", f"{brief}{beside}"
        else:
            status = "measured" if any(row.fault != "sound" for row in rows) else "excluded"
            brief = f"{label}: {_sound(rows)}"
            found = f"{brief}{beside}"
        claim = Hypothesis(
            test=None, status=status, found=found, brief=brief, beside=numbers, words=WORDS,
            title=f"{self.title}: {label}",
        )  # fmt: skip
        return self.draft(case, name, claim, [trial]), rows


def _kind(row: TensorRow) -> str:
    return f" ({row.format})" if row.format else ""


def _sound(rows: list[TensorRow]) -> str:
    """What there is to say of a file without a fault."""
    compared = [row for row in rows if row.fault != "uncompared"]
    if not compared:
        return "no tensor was matched to a weight of the original: nothing was compared."
    kinds, left = ", ".join(sorted({row.format for row in compared})), _left(rows)
    if any(row.fault == "unknown" for row in compared):
        worst = max(compared, key=lambda row: row.error)
        return (
            f"no rule says what its format ({kinds}) should give. {many(len(compared), 'tensor')} compared: the largest"
            f" error is {worst.error:.2g} of the original, the least cosine {min(row.cosine for row in compared):.4f}."
            f"{left}"
        )
    which = "the" if left else "all"
    return f"{which} {many(len(compared), 'tensor')} are what their formats ({kinds}) make of the original's.{left}"


def _left(rows: list[TensorRow]) -> str:
    """What of the original was not compared, as a sentence; empty where all of it was."""
    rest = [row.name for row in rows if row.fault == "uncompared"]
    named = f"{many(len(rest), 'weight')}, {rest[0]} among them" if rest else ""
    return f" Not compared: {_share(rows):.1%} of the original ({named})." if rest else ""


def _share(rows: list[TensorRow]) -> float:
    """Of the original's numbers that were not compared."""
    return sum(row.amount for row in rows if row.fault == "uncompared" and row.amount != UNKNOWN)


def said(row: TensorRow) -> str:
    """What is wrong with a tensor, as the end of a sentence that begins with its name."""
    numbers = f"cosine {row.cosine:.3f}, error {row.error:.2g} of the original"
    usual = f" where its format gives {row.expected:.2g}" if row.expected != UNKNOWN else ""
    return {
        "missing": "is missing",
        "unread": "belongs to no weight of the original",
        "shape": "has another shape than the original's",
        "not finite": "holds numbers that are not finite",
        "constant": "holds the same number everywhere"
        + (" in each of its groups" if row.amount == UNKNOWN else f" ({row.amount:.3g})"),
        "scale": f"is {row.amount:.3g} times the original",
        "offset": f"is the original plus {row.amount:.3g}",
        "steps": f"is shifted by whole steps of its grid, as by wrong zero points ({numbers}{usual})",
        "other tensor": f"holds the values of {row.beside}",
        "transposed": "is transposed",
        "permuted": "has its rows in another order: permuted once too often, or not at all",
        "other values": f"does not hold the original's values ({numbers}{usual})",
        "uncompared": "could not be compared",
        "groups": f"has another scale or zero point in {many(round(row.amount), 'group')} than in the rest",
        "not positive": "is not positive everywhere: it scales activations",
        "twice": "stands beside the packed weights of its module, and is not read",
        "rows": f"does not hold the original's values in {round(row.amount):,} of {many(row.rows, 'row')}",
        "blocks": f"has blocks that no rounding gives ({row.amount:.2g} of them): bytes were changed",
    }.get(row.fault, "is as it should be")


def _section(file: ShippedFile, rows: list[TensorRow]) -> Section:
    """The tensors of a file."""

    def beyond(row: TensorRow) -> float:
        return row.error / row.expected if row.expected > 0.0 else row.error

    ordered = sorted(rows, key=lambda row: (row.fault in UNJUDGED, row.fault != "uncompared", -beyond(row)))
    cells = tuple(
        (
            Cell(row.name, tone="quiet" if row.fault in UNJUDGED else "alarm"), row.format,
            *(_number(one) for one in (row.cosine, row.error, row.expected)),
            "" if row.fault == "unknown" else said(row),
        )
        for row in ordered[:_LISTED]
    )  # fmt: skip
    heads = ("tensor", "format", "cosine", "error", "its format gives", "")
    left = len(rows) - len(cells)
    says = f"Error is ||file - original|| / ||original||.{f' {left} more tensors show no fault.' if left else ''}"
    table = Table(title=says, heads=heads, rows=cells)
    return Section(title=f"Tensors of {schemes(file.spec)[0].label}", blocks=(table,))


def _number(value: float) -> str:
    return "" if value == UNKNOWN else f"{value:.4g}"
