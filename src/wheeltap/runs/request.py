"""What is asked of a run: one struct for the arguments of Python, the flags and a settings file.

A function takes the fields of such a struct as keywords with ``door``: names, defaults and docs stand here alone.
"""

import inspect
import math
import operator
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final, ParamSpec, Self, SupportsFloat, TypedDict, TypeVar, cast, get_type_hints

import msgspec

from wheeltap.core.errors import UsageError
from wheeltap.core.records import TaskRecord
from wheeltap.core.settings import checked, described
from wheeltap.plans.plan import ALPHA, ERROR_MARGIN, FILES, HIGHEST, LOWEST, MARGIN, AuditSpec, Effort

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

Audits = str | AuditSpec | Sequence[str | AuditSpec]
"""Names of audits, or specs with settings; a single one may stand by itself."""


Given = Mapping[str, Callable[[], Any]]
"""Functions that give models as they are shipped, by the names that they go by as schemes."""


_FORM: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(f|m|min|s|h)\s*")
_SECONDS: Final = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


class Budget(msgspec.Struct, frozen=True):
    """Passes over the task, or seconds, that a run may spend; exactly one of them.

    Attributes:
        forwards: Passes of the whole task through a model.
        seconds: Wall-clock of planning, running and judging.
    """

    forwards: float | None = None
    seconds: float | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """A budget such as ``200f`` (passes), ``90s``, ``10m`` or ``2h``.

        Raises:
            UsageError: If it is none.
        """
        found = _FORM.fullmatch(text)
        if found is None or float(found[1]) <= 0:
            raise UsageError(
                "The budget cannot be read.",
                expected="a positive number with its unit: 200f (passes over the examples), 90s, 10m or 2h",
                got=text,
            )
        size = float(found[1])
        return cls(forwards=size) if found[2] == "f" else cls(seconds=size * _SECONDS[found[2]])


@dataclass(frozen=True, kw_only=True)
class StudyRequest:
    """How hard is measured, from which draws, and at what level.

    Attributes:
        effort: Draws; by default chosen by the model's size.
        seed: Root of every draw.
        alpha: Probability of any false alarm, over all findings together; of any false reassurance, likewise.
    """

    effort: Effort | None = None
    seed: int = 0
    alpha: float = ALPHA

    def sound(self) -> Self:
        """The same with Python's own numbers.

        Raises:
            UsageError: If one of them cannot be used.
        """
        if self.effort is not None and not isinstance(self.effort, Effort):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise UsageError(
                "The argument effort cannot be used.",
                where="effort",
                expected="a wt.Effort, or None for one that suits the model's size",
                got=repr(self.effort)[:120],
                do="Give effort=wt.Effort(draws=8), say.",
            )
        try:
            alpha = float(self.alpha) if isinstance(self.alpha, SupportsFloat) else math.nan  # pyright: ignore[reportUnnecessaryIsInstance]
        except (TypeError, ValueError):
            alpha = math.nan
        if not LOWEST <= alpha <= HIGHEST:
            raise UsageError(
                "The argument alpha cannot be used.",
                where="alpha",
                expected=f"a number from {LOWEST:g} to {HIGHEST}",
                got=repr(self.alpha)[:120],
                do="Give alpha=0.05, say: the chance of a false verdict.",
            )
        return replace(self, seed=whole_of(self.seed, name="seed"), alpha=alpha)


@dataclass(frozen=True, kw_only=True)
class Request(StudyRequest):
    """What is measured of models, how hard, and at what level.

    Attributes:
        audits: Names (see ``wheeltap list audits``), or specs with settings, or a single one.
        budget: What it may cost, such as ``200f`` (passes) or ``10m``: effort is cut to fit (see ``Plan.cuts``).
        schemes: How the models will be shipped, such as ``"nf4,int8"``: what the audit ``deployment`` judges. Files
            that were made from the model are such too (``"gguf:m.Q4_0.gguf"``), and functions that give a module.
        slices: What divides the examples, such as ``"class"`` (their right answer) or factors: each value has verdicts
            of its own under every scheme.
        margin: Smallest loss of score of interest: a share of right answers (by default MARGIN), of an error without a
            bound (ERROR_MARGIN), or of the way from chance to any other score (MARGIN).
        cap: Most that the loss of an example counts as (squared error, nll), so that verdicts on skewed losses need
            fewer examples. It is applied to stored outcomes, which keep their values.
        partial: Whether verdicts are given although many weights were left alone.
        measure: What the examples are scored by: a name (see ``wheeltap list measures``), such as f1, iou, exact_match,
            a ``wt.measure``, or a function of scores (or what was said) and targets (also ``module:callable``); by
            default what the targets are.
    """

    audits: Audits | None = None
    budget: Budget | str | None = None
    schemes: str | Sequence[str | Callable[[], Any]] | None = None
    slices: str | Sequence[str] | None = None
    margin: float | None = None
    cap: float | None = None
    partial: bool = False
    measure: str | Callable[..., Any] | None = None

    def sound(self) -> Self:
        """The same with numbers of Python's own, and audits one by one; that of deployment judges the schemes.

        Raises:
            UsageError: If one of them cannot be used.
        """
        margin = None if self.margin is None else margin_of(self.margin)
        return replace(super().sound(), margin=margin, audits=self._shipped(audits_of(self.audits)))

    def _shipped(self, asked: Sequence[str | AuditSpec]) -> Sequence[str | AuditSpec]:
        judged = dict[str, str]()
        if self.slices is not None:
            named = (self.slices,) if isinstance(self.slices, str) else self.slices
            if not isinstance(named, tuple | list) or not named or not all(isinstance(one, str) for one in named):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise UsageError(
                    "This names no slices.",
                    where="slices",
                    expected="names such as 'class', or a list of them",
                    got=repr(self.slices)[:120],
                    do="A mask is a factor: slices='night' of task.with_factors({'night': mask}).",
                )
            judged["slices"] = ",".join(named)
        if self.schemes is None and not judged:
            return asked
        if self.schemes is not None:
            judged["schemes"] = ",".join(self._schemes())
            if only_files(asked):
                return [AuditSpec(name=FILES, settings={"files": judged["schemes"]})]
        kept = [one for one in asked or ("score",) if one != "deployment"]
        known = [isinstance(one, AuditSpec) and one.name == "deployment" for one in kept]
        if not any(known):
            kept, known = [*kept, AuditSpec(name="deployment")], [*known, True]
        return [
            AuditSpec(name=one.name, settings={**one.settings, **judged})
            if ours and isinstance(one, AuditSpec)
            else one
            for one, ours in zip(kept, known, strict=True)
        ]

    def _schemes(self) -> list[str]:
        """The schemes one by one, functions by the names that they go by."""
        alone = isinstance(self.schemes, str) or callable(self.schemes)
        several = cast("Sequence[Any]", (self.schemes,) if alone else self.schemes)
        if isinstance(several, tuple | list):  # pyright: ignore[reportUnnecessaryIsInstance]
            several = [called(one) if callable(one) else one for one in several]
        if not isinstance(several, tuple | list) or not all(isinstance(one, str) for one in several):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise UsageError(
                "This names no deployment scheme.",
                where="schemes",
                expected="names such as 'nf4,int8', or a list of them",
                got=repr(self.schemes)[:120],
                do="See: wheeltap list schemes",
            )
        return list(several)


def only_files(asked: Sequence[str | AuditSpec]) -> bool:
    """Whether files are only looked at, tensor by tensor, and nothing is run."""
    from wheeltap.audits.base import named

    return {named(one if isinstance(one, str) else one.name) for one in asked} == {FILES}


class StudyOptions(TypedDict, total=False):
    """Fields of ``StudyRequest`` as keywords."""

    effort: Effort | None
    seed: int
    alpha: float


class RequestOptions(StudyOptions, total=False):
    """Fields of ``Request`` as keywords."""

    audits: Audits | None
    budget: Budget | str | None
    schemes: str | Sequence[str | Callable[[], Any]] | None
    slices: str | Sequence[str] | None
    margin: float | None
    cap: float | None
    partial: bool
    measure: str | Callable[..., Any] | None


def door(*kinds: type) -> Callable[[Callable[Arguments, Result]], Callable[Arguments, Result]]:
    """Gives a function that takes ``**asked`` the fields of these structs as keywords, with defaults and docs.

    In its docstring, ``asked: ...`` stands for what the structs say of them. Choices are checked.
    """

    def forwarding(own: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
        signature, doc = inspect.signature(own), inspect.cleandoc(own.__doc__ or "")
        kept = [one for one in signature.parameters.values() if one.kind is not inspect.Parameter.VAR_KEYWORD]
        lines = list[str]()
        for kind in kinds:
            hints = get_type_hints(kind, include_extras=True)
            for field in fields(kind):
                kept.append(
                    inspect.Parameter(
                        field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name]
                    )
                )
                text = textwrap.fill(f"{field.name}: {said_of(kind)[field.name]}", 108, subsequent_indent="    ")
                lines.append(textwrap.indent(text, "    "))
        own.__signature__ = signature.replace(parameters=kept)  # pyright: ignore[reportFunctionMemberAccess]
        own.__doc__ = doc.replace("    asked: What is passed on.", "\n".join(lines))
        return checked(own)

    return forwarding


def said_of(kind: type) -> dict[str, str]:
    """What a struct of a request says of each field, usual margins in numbers."""
    said = {
        name: text for each in reversed(kind.__mro__) for name, text in described(each.__doc__, "Attributes").items()
    }
    usual = {"ERROR_MARGIN": f"{ERROR_MARGIN:g}", "MARGIN": f"{MARGIN:g}"}
    return {name: re.sub("|".join(usual), lambda found: usual[found[0]], text) for name, text in said.items()}


def called(function: Callable[[], Any]) -> str:
    """The name that a function goes by as a scheme."""
    module, name = (str(getattr(function, one, "")) for one in ("__module__", "__name__"))
    kept = "".join(letter for letter in name if letter.isalnum() or letter == "_") or type(function).__name__
    return f"{module or 'given'}:{kept}"


def functions_of(schemes: object) -> dict[str, Callable[[], Any]]:
    """The functions among schemes, by the names that they go by."""
    several = cast("Sequence[Any]", schemes if isinstance(schemes, list | tuple) else [schemes])
    return {called(one): one for one in several if callable(one)}


def audits_of(given: Audits | None) -> list[str | AuditSpec]:
    """Names and specs one by one; none where none are asked for.

    Raises:
        UsageError: If something else is among them.
    """
    if isinstance(given, str):  # as on the command line
        return [name.strip() for name in given.split(",")]
    several: list[Any] = [given] if isinstance(given, AuditSpec) else list(cast("Sequence[Any]", given or ()))
    for one in several:
        if not isinstance(one, str | AuditSpec):
            raise UsageError(
                "This names no audit.",
                where="audits",
                expected="names such as 'score', or wt.AuditSpec('score', {...}) with settings",
                got=f"{type(one).__name__}: {one!r}"[:120],
                do="Give one name or a list of them; see: wheeltap list audits",
            )
    return several


def margin_of(margin: Any, *, of_answers: bool = False) -> float:
    """A share; of right answers less than all of them: 1 was meant as a point.

    Raises:
        UsageError: If it is something else.
    """
    if not (isinstance(margin, int | float) and 0.0 < margin <= 1.0) or (of_answers and margin == 1.0):
        raise UsageError(
            "The margin cannot be used.",
            where="margin",
            expected="a share above 0 and below 1, such as .02 (2 points of accuracy), of an error at most 1",
            got=f"{margin!r}",
            do="Give the smallest loss that you care about, as a share: for one point, .01.",
        )
    return float(margin)


CAPPED: Final = ("nll", "squared_error", "log_perplexity")
"""Measures whose losses can be capped: never below 0, and without a largest value."""


def with_cap(task: TaskRecord, cap: float | None) -> TaskRecord:
    """Return the task with losses capped at ``cap``, where one is given.

    Raises:
        UsageError: If it is not a positive number, or losses of this measure have bounds or a sign.
    """
    if cap is None:
        return task
    if not (isinstance(cap, int | float) and math.isfinite(cap) and cap > 0.0):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise UsageError(
            "The cap cannot be used.", where="cap", expected="a number above 0, in units of the measure",
            got=repr(cap)[:120], do="Give the largest loss of an example that should count, such as 3.",
        )  # fmt: skip
    if task.measure not in CAPPED:
        why = "is bounded already" if task.in_points else "is no loss that starts at 0"
        raise UsageError(
            f"The measure {task.measure} {why}, so its losses have no cap.", where="cap",
            expected=f"one of {', '.join(CAPPED)}", got=task.measure, do="Leave out cap, or give another measure.",
        )  # fmt: skip
    return msgspec.structs.replace(task, cap=float(cap))


def whole_of(value: Any, *, name: str, least: int | None = None, do: str = "") -> int:
    """A whole number as Python's own.

    Args:
        value: What was given.
        name: Of the argument.
        least: The smallest that can be used.
        do: What to do where it is something else.

    Raises:
        UsageError: If it is something else.
    """
    try:
        whole = operator.index(value)
    except TypeError:
        whole = None
    if whole is None or (least is not None and whole < least):
        raise UsageError(
            f"The argument {name} cannot be used.",
            where=name,
            expected="a whole number" if least is None else f"a whole number from {least} on",
            got=repr(value)[:120],
            do=do or f"Give {name}={least or 0}, say.",
        )
    return whole
