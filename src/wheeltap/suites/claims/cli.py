"""``wheeltap claims``."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

from cyclopts import App, Parameter
from cyclopts.validators import Number

from wheeltap.cli.options import AllowCode, Seed, Whole
from wheeltap.core.plain import many

if TYPE_CHECKING:
    from wheeltap.suites.claims.ledger import Claim, Retest, ScopeRow
    from wheeltap.suites.claims.record import ClaimResult

claims = App(
    name="claims",
    group="Ask",
    help="""What the literature claims of weight disturbance, tested again by rules that were fixed beforehand.

Try it:

  wheeltap claims list
  wheeltap claims show C1
  wheeltap claims retest C2 --out c2/
""",
    help_format="plaintext",
)

LedgerFile = Annotated[
    Path | None, Parameter(name="--ledger", help="A file or folder of claims of your own. [default: the nine of ours]")
]
RunFile = Annotated[Path | None, Parameter(name="--run", help="What a run of retests found: its claims.json.")]
Ids = Annotated[str, Parameter(help="Claims, such as C1.", show_default=False)]

_SIDES: Final = {"for": "For it", "against": "Against it", "context": "Beside it"}


@claims.command(name="list")
def list_(*, ledger: LedgerFile = None) -> int:
    """Lists the claims: what they say, the verdict of the literature and its date, grades of sources, retests.

    Try it:

      wheeltap claims list
      wheeltap claims list --ledger mine.toml
    """
    from wheeltap.core.plain import terminal
    from wheeltap.report.words import wrapped
    from wheeltap.suites.claims.ledger import read

    found, console = read(ledger).claims, terminal()
    verdicts = Counter(claim.verdict.word for claim in found)
    counted = ", ".join(f"{count} {word}" for word, count in verdicts.most_common())
    wrapped(console, f"{many(len(found), 'claim')}; by the literature: {counted}.")
    for claim in found:
        grades = Counter(source.grade or "without a grade" for source in claim.sources)
        sources = ", ".join(f"{count} {grade}" for grade, count in grades.most_common()) or "no sources"
        retests = ", ".join(retest.name for retest in claim.retests) or "none"
        wrapped(console, f"{claim.id}  {claim.statement}", style="bold", hang=4)
        wrapped(console, f"{_verdict(claim)}. Sources: {sources}. Retests: {retests}.", indent=4)
    return 0


@claims.command
def show(claim: Ids, *, ledger: LedgerFile = None, run: RunFile = None) -> int:
    """Shows one claim: verdict, sources for and against it with their grades, kinds of models, rules of its retests.

    Try it:

      wheeltap claims show C1
      wheeltap claims show C1 --run c1/claims.json
    """
    from wheeltap.core.plain import terminal
    from wheeltap.report.words import wrapped

    console = terminal()
    asked, result = _of(claim, ledger, run)
    wrapped(console, f"{asked.id}: {asked.statement}", style="bold")
    for title, lines in _card(asked, result):
        if lines:
            wrapped(console, title, style="bold" if title.endswith(":") else "", hang=2)
        for line in lines:
            wrapped(console, line, indent=2, hang=2)
    return 0


def _card(claim: "Claim", result: "ClaimResult | None") -> Iterator[tuple[str, list[str]]]:
    """Titles of a card, each with its lines."""
    from wheeltap.suites.claims.ledger import GRADES

    yield "Verdicts:", [f"the literature: {_verdict(claim)}. {claim.verdict.because}", *_ours(result)]
    yield "Where it was said:", [claim.scope] if claim.scope else []
    for side, title in _SIDES.items():
        works = [source for source in claim.sources if source.side == side]
        yield (
            f"{title}:",
            [
                f"{work.name} ({', '.join(filter(None, (work.grade or 'no grade', str(work.year or ''))))})"
                f"{f' {work.title}' if work.title and work.title != work.name else ''}: {work.says}"
                for work in works
            ],
        )
    yield "Kinds of models:", [_scope(row) for row in claim.scopes]
    yield "Retests:", [_retest(retest) for retest in claim.retests]
    yield "What would change our mind:", [claim.change] if claim.change else []
    used = dict.fromkeys(source.grade for source in claim.sources if source.grade)
    yield "Grades:", [f"{grade}: {GRADES[grade]}." for grade in used]


def _verdict(claim: "Claim") -> str:
    return f"{claim.verdict.word}, {claim.verdict.date or 'without a date'}"


def _ours(result: "ClaimResult | None") -> list[str]:
    return [] if result is None else [f"our run: {result.answer}. {result.because}"]


def _scope(row: "ScopeRow") -> str:
    parts = {"shown": row.shown, "we ran": row.ran, "shown by nobody": row.open}
    said = "; ".join(f"{what}: {text}" for what, text in parts.items() if text) or "nothing"
    return f"{row.kind}{f', {row.scale}' if row.scale else ''}. {said[0].upper()}{said[1:]}."


def _retest(retest: "Retest") -> str:
    if retest.derived is not None:
        one = retest.derived
        return (
            f"{retest.name}: {retest.question} {one.number} against the {one.statistic} of {one.column} in {one.rows}."
        )
    rules = "; ".join(f"{rule.title!r} {rule.supports}" for rule in retest.rules)
    said = f"{retest.name}: {retest.question} Study {retest.study}; supports if {retest.needs} of: {rules}."
    if retest.expected is not None:
        said += (
            f" Expected by {retest.expected.source}: {retest.expected.value:g} {retest.expected.unit}".rstrip() + "."
        )
    return said if retest.detectable is None else f"{said} Planned to find {retest.detectable:g} or more."


def _of(claim: str, ledger: Path | None, run: Path | None) -> "tuple[Claim, ClaimResult | None]":
    """A claim, and what a run says of it."""
    from wheeltap.suites.claims.ledger import read
    from wheeltap.suites.claims.record import read as read_run

    [asked] = read(ledger).chosen([claim])
    results = () if run is None else read_run(run).claims
    return asked, next((one for one in results if one.id == claim), None)


@claims.command
def why(claim: Ids, *, ledger: LedgerFile = None, run: RunFile = None) -> int:
    """Says what the verdict on a claim rests on, what speaks against it, and what would change our mind.

    Try it:

      wheeltap claims why C6
      wheeltap claims why C6 --run c6/claims.json
    """
    from wheeltap.core.plain import terminal
    from wheeltap.report.words import wrapped

    console = terminal()
    asked, result = _of(claim, ledger, run)
    wrapped(console, f"{asked.id} is {_verdict(asked)}: {asked.verdict.because}")
    for line in _ours(result):
        wrapped(console, f"{line[0].upper()}{line[1:]}")
    for one in () if result is None else result.retests:
        for rule in one.rules:
            effect = f": {rule.effect}" if rule.effect is not None else ""
            wrapped(console, f"{one.name}, {rule.title}{effect}; {rule.answer}.", indent=2, hang=2)
    read = {"grounded": "read at the source", "secondary": "by summaries", "ungrounded": "from memory alone"}
    for side in ("for", "against"):
        works = [source for source in asked.sources if source.side == side]
        parts = [
            f"{words} {', '.join(names)}"
            for grade, words in read.items()
            if (names := [work.name for work in works if work.grade == grade])
        ]
        own = [f"{work.grade}, {work.says}" for work in works if work.grade not in read]
        wrapped(console, f"{_SIDES[side]}: {'; '.join((*parts, *own)) or 'nothing is known'}.", hang=2)
    for source in asked.sources:
        if source.grade == "absence":
            wrapped(console, f"Looked for, and not found: {source.says}", hang=2)
    wrapped(console, f"What would change our mind: {asked.change or 'not said.'}", hang=2)
    return 0


@claims.command
def check(
    file: Annotated[
        Path | None, Parameter(help="Claims of your own, or a repro.yaml. [default: the nine of ours]")
    ] = None,
) -> int:  # fmt: skip
    """Checks a ledger without running anything: IDs, grades, dates, rules that nothing could trip, stale numbers.

    Of a repro.yaml, files are held against the SHA-256 that they are pinned by, and numbers against what is in them.
    Exit code 1 where something is found.

    Try it:

      wheeltap claims check
      wheeltap claims check mine.toml
      wheeltap claims check repro.yaml
    """
    from wheeltap.core.plain import terminal
    from wheeltap.report.words import wrapped
    from wheeltap.suites.claims import repro
    from wheeltap.suites.claims.ledger import read
    from wheeltap.suites.claims.lint import faults

    console = terminal()
    if file is not None and file.suffix in (".yaml", ".yml", ".json"):
        found = repro.checked(file)
        wrong = [one for one in found if one.status in ("changed", "stale")]
        counts = Counter(one.status for one in found)
        counted = ", ".join(f"{count} {status}" for status, count in counts.most_common()) or "nothing is declared"
        wrapped(console, f"{file}: {counted}.")
        for one in (*wrong, *(one for one in found if one not in wrong)):
            wrapped(console, f"{one.status}: {one.name}. {one.because}", indent=2, hang=2)
        return int(bool(wrong))
    ledger = read(file)
    several, of = faults(ledger), many(len(ledger.claims), "claim")
    if not several:
        retests = sum(len(claim.retests) for claim in ledger.claims)
        wrapped(console, f"Nothing is wrong with {of} and {many(retests, 'retest')}.")
    else:
        names = dict.fromkeys(one.claim for one in several)
        wrapped(console, f"{many(len(several), 'fault')} in {len(names)} of {of}.")
    for one in several:
        wrapped(console, f"{one.claim}, {one.where}: {one.what}", indent=2, hang=2)
    return int(bool(several))


@claims.command
def export(
    *,
    file: Annotated[
        Path | None,
        Parameter(name=["--file", "-o"], help="Where to. [default: claims.export.json, or the folder claims.crate]"),
    ] = None,
    format: Annotated[  # noqa: A002 - the flag's name
        Literal["json", "ro-crate"],
        Parameter(help="JSON; or an RO-Crate, a folder or a .zip (pip install 'wheeltap[claims]')."),
    ] = "json",
    ledger: LedgerFile = None,
    run: RunFile = None,
) -> int:  # fmt: skip
    """Writes a ledger for other programs, and a run of its retests with it.

    Try it:

      wheeltap claims export -o claims.export.json
      wheeltap claims export --format ro-crate -o claims.zip --run c1/claims.json
    """
    from wheeltap.report import files
    from wheeltap.suites.claims.export import to_crate, to_json
    from wheeltap.suites.claims.ledger import read
    from wheeltap.suites.claims.record import read as read_run

    found, held = read(ledger), None if run is None else read_run(run)
    place = file or Path("claims.export.json" if format == "json" else "claims.crate")
    if format == "json":
        files.write(place, to_json(found, held))
    else:
        to_crate(found, place, run)
    print(f"{place}: {many(len(found.claims), 'claim')}{'' if held is None else ', and a run of retests'}.")
    return 0


@claims.command
def retest(  # noqa: PLR0913 - a door: each is a choice of its own
    *ids: Ids,
    size: Annotated[Literal["small", "full"], Parameter(help="Small takes minutes a claim, on two cores.")] = "small",
    ledger: LedgerFile = None,
    out: Annotated[
        Path, Parameter(help="Folder for stores, claims.json and the page claims.html; the same command resumes.")
    ] = Path("claims.wheeltap.d"),
    seed: Annotated[Seed, Parameter(validator=Number(gte=0, lt=2**63))] = 0,
    workers: Annotated[Whole, Parameter(validator=Number(gte=1), help="Processes; 1 computes in this one.")] = 1,
    allow_code: AllowCode = False,
    quiet: Annotated[bool, Parameter(negative="", help="Print the answer alone, and no progress.")] = False,
) -> int:  # fmt: skip
    """Tests claims again; without names, all of the ledger.

    Each retest is a study: nets that are made, rules that were fixed before the first one. All retests of the ledger
    share one chance of error, whichever are run. If it is interrupted, the same command resumes it.

    Try it:

      wheeltap claims retest C1
      wheeltap claims retest C1 C2 --size full --workers 2 --out full/
      wheeltap claims retest --ledger mine.toml --out mine/
    """
    from functools import partial

    from wheeltap.cli.progress import run_progress
    from wheeltap.core.plain import terminal
    from wheeltap.report.sections import terminal as printed
    from wheeltap.suites.claims import sections
    from wheeltap.suites.claims.ledger import read
    from wheeltap.suites.claims.retest import retested

    record = retested(
        read(ledger), ids, size=size, seed=seed, folder=out, workers=workers, watch=partial(run_progress, quiet=quiet),
        allow_code=allow_code,
    )  # fmt: skip
    printed([sections.first(record)], terminal(), full=not quiet)
    if not quiet:
        print(f"Written: {out / 'claims.html'}, {out / 'claims.json'}")
    return 0


@claims.command
def diff(
    old: Annotated[Path, Parameter(help="The claims.json of a run.")],
    new: Annotated[Path, Parameter(help="That of a later one.")],
) -> int:
    """Says what changed between two runs: verdicts, effects beyond the other's interval, rules, what is new or gone.

    Exit code 1 where something did.

    Try it:

      wheeltap claims diff before/claims.json after/claims.json
    """
    from wheeltap.core.plain import terminal
    from wheeltap.report.sections import terminal as printed
    from wheeltap.suites.claims import record, sections

    before, after = record.read(old), record.read(new)
    printed([sections.changes(before, after)], terminal(), full=True)
    return int(bool(record.diff(before, after)))
