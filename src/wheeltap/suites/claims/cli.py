"""``wheeltap claims``."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter
from cyclopts.validators import Number

from wheeltap.cli.options import STDOUT, AllowCode, ExecutionFlags, RayAddress, Seed, Whole
from wheeltap.core.plain import many

if TYPE_CHECKING:
    from wheeltap.suites.claims.ledger import Retest

claims = App(
    name="claims",
    group="Ask",
    help="""Claims of the literature, tested again by rules fixed beforehand.

Try it:

  wheeltap claims list
  wheeltap claims show C1
  wheeltap claims retest C2 --out c2/
  wheeltap claims check mine.toml
""",
    help_format="plaintext",
)

LedgerFile = Annotated[
    Path | None, Parameter(name="--ledger", help="A file or folder of claims of your own. [default: the nine of ours]")
]
RunFile = Annotated[Path | None, Parameter(name="--run", help="What a run of retests found: its claims.json.")]
Id = Annotated[str, Parameter(help="A claim, such as C1.", show_default=False)]


def _print(answer: str, lines: Iterable[str] = ()) -> None:
    from wheeltap.core.plain import terminal
    from wheeltap.report.words import wrapped

    console = terminal()
    wrapped(console, answer)
    for line in lines:
        wrapped(console, line, indent=0 if line.endswith(":") else 2, hang=2)


def _counted(words: Iterable[str]) -> str:
    return ", ".join(f"{count} {word}" for word, count in Counter(words).most_common()) or "none"


@claims.command(name="list")
def list_(*, ledger: LedgerFile = None) -> int:
    """Lists the claims: what they say, the verdict of the literature and its date, grades of sources, retests."""
    from wheeltap.suites.claims.ledger import read

    found, lines = read(ledger).claims, list[str]()
    for claim in found:
        sources = _counted(source.grade or "without a grade" for source in claim.sources)
        retests = ", ".join(retest.name for retest in claim.retests) or "none"
        verdict = f"Literature: {claim.verdict}. Sources: {sources}. Retests: {retests}."
        lines.append(f"{claim.id}: {claim.statement} {verdict}")
    _print(f"{many(len(found), 'claim')}; by the literature: {_counted(one.verdict.word for one in found)}.", lines)
    return 0


@claims.command
def show(claim: Id, *, ledger: LedgerFile = None, run: RunFile = None) -> int:
    """Shows one claim: verdict, sources for and against it with their grades, kinds of models, rules of its retests."""
    return _card(claim, ledger, run)


@claims.command
def why(claim: Id, *, ledger: LedgerFile = None, run: RunFile = None) -> int:
    """Says what the verdict on a claim rests on, what speaks against it, and what would change our mind.

    Try it:

      wheeltap claims why C6
      wheeltap claims why C6 --run c6/claims.json
    """
    beside = ("Where it was said", "Beside it", "Kinds of models", "Retests", "Grades")
    return _card(claim, ledger, run, left_out=beside)


def _card(name: str, file: Path | None, run: Path | None, *, left_out: tuple[str, ...] = ()) -> int:
    """Prints a claim, or parts of it."""
    from wheeltap.suites.claims.ledger import GRADES, read
    from wheeltap.suites.claims.record import read as read_run

    claim, *_ = read(file).chosen([name])  # check says where two have one id
    ours, rows = list[str](), list[str]()
    for result in () if run is None else read_run(run).claims:
        if result.id == name:
            rules = [(one.name, rule) for one in result.retests for rule in one.rules]
            ours = [f"{result.answer}. {result.because}"]
            ours += [f"{of}, {rule.title}: {rule.effect or 'no number'}; {rule.answer}." for of, rule in rules]
    works: dict[str, list[str]] = {"for": [], "against": [], "context": [], "absence": []}
    for source in claim.sources:
        title = f" {source.title}" if source.title and (source.arxiv or source.url) else ""
        read_of = ", ".join(filter(None, (source.grade or "no grade", str(source.year or ""))))
        cited = f"{source.name}{title} ({read_of})" if source.arxiv or source.url or source.title else read_of
        works["absence" if source.grade == "absence" else source.side].append(f"{cited}: {source.says}")
    for row in claim.scopes:
        texts = {"shown": row.shown, "we ran": row.ran, "shown by nobody": row.open}
        said = "; ".join(f"{what}: {text}" for what, text in texts.items() if text)
        rows.append(f"{row.kind}{f' ({row.scale})' if row.scale else ''}: {said or 'nothing'}.")
    grades = dict.fromkeys(source.grade for source in claim.sources if source.grade)
    parts = {
        "Verdict": [f"{claim.verdict}. {claim.verdict.because}"], "Our run": ours,
        "Where it was said": [claim.scope] if claim.scope else [], "For it": works["for"],
        "Against it": works["against"], "Beside it": works["context"], "Looked for in vain": works["absence"],
        "Kinds of models": rows, "Retests": [*map(_retest, claim.retests)],
        "What would change our mind": [claim.change] if claim.change else [],
        "Grades": [f"{one}: {GRADES[one]}." for one in grades],
    }  # fmt: skip
    shown = [(title, lines) for title, lines in parts.items() if lines and title not in left_out]
    _print(f"{claim.id}: {claim.statement}", [line for title, lines in shown for line in (f"{title}:", *lines)])
    return 0


def _retest(retest: "Retest") -> str:
    said = f"{retest.name}: {retest.question}"
    if (needed := retest.data) is not None:
        said += f" Needs --files FOLDER with {needed.file}: {needed.get}."
    rules = "; ".join(f"{rule.title!r} {rule.supports}" for rule in retest.rules)
    said += f" Study {retest.study}; supports if {retest.needs} of: {rules}."
    if (effect := retest.expected) is not None:
        said += f" Expected by {effect.source}: {effect.value:g} {effect.unit}".rstrip() + "."
    return said if retest.detectable is None else f"{said} Planned to find {retest.detectable:g} or more."


@claims.command
def check(
    file: Annotated[Path | None, Parameter(help="Claims of your own. [default: ours]")] = None,
) -> int:
    """Check a ledger without running a study: IDs, grades, dates, rules that no outcome could decide.

    Exit code 1 if there is a fault.

    Try it:

      wheeltap claims check mine.toml
    """
    from wheeltap.suites.claims.ledger import read
    from wheeltap.suites.claims.lint import faults

    ledger = read(file)
    several, of = faults(ledger), many(len(ledger.claims), "claim")
    wrong = f"{many(len(several), 'fault')} in {len({one.claim for one in several})} of {of}."
    lines = [f"{one.claim}, {one.where}: {one.what}" for one in several]
    _print(wrong if several else f"Nothing is wrong with {of}.", lines)
    return int(bool(several))


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class RetestFlags:
    """How retests are run, and where their verdicts go."""

    size: Annotated[Literal["small", "full"], Parameter(help="Small takes minutes a claim, on two cores.")] = "small"
    out: Annotated[
        Path, Parameter(help="Folder for stores, claims.json and the page claims.html; the same command resumes.")
    ] = Path("claims.wheeltap.d")
    seed: Annotated[Seed, Parameter(validator=Number(gte=0, lt=2**63))] = 0
    workers: Annotated[Whole, Parameter(validator=Number(gte=1), help="Processes; 1 computes in this one.")] = 1
    ray: RayAddress = None
    files: Annotated[Path | None, Parameter(help="Folder of files that some retests need; show says which.")] = None
    json: Annotated[
        Path | None,
        Parameter(allow_leading_hyphen=True, help="Write the verdicts as JSON to this file; - for the output."),
    ] = None
    quiet: Annotated[bool, Parameter(negative="", help="Print the answer alone, and no progress.")] = False


_RETEST = RetestFlags()


@claims.command
def retest(
    *ids: Annotated[str, Parameter(help="Claims, such as C1; without any, all of the ledger.")],
    ledger: LedgerFile = None,
    allow_code: AllowCode = False,
    flags: RetestFlags = _RETEST,
) -> int:
    """Tests claims again by their studies: nets are made, and judged by rules that were fixed before the first one.

    All retests of the ledger share one chance of error, whichever are run. If it is interrupted, the same command
    resumes it.

    Try it:

      wheeltap claims retest C1 C2 --size full --workers 2 --out full/
      wheeltap claims retest --ledger mine.toml --out mine/ --json mine.json
    """
    from functools import partial

    from wheeltap.cli.progress import run_progress
    from wheeltap.core.plain import terminal
    from wheeltap.report.files import require_writable, write
    from wheeltap.report.sections import terminal as printed
    from wheeltap.runs.request import StudyRequest
    from wheeltap.suites.claims import sections
    from wheeltap.suites.claims.ledger import read
    from wheeltap.suites.claims.record import as_json
    from wheeltap.suites.claims.retest import RetestRun, retested

    out, json, quiet = flags.out, flags.json, flags.quiet
    if json is not None and json != STDOUT:
        require_writable(json)  # fail now, not after hours of training
    executor = ExecutionFlags(workers=flags.workers, ray=flags.ray).executor
    run = RetestRun(
        flags.size, StudyRequest(seed=flags.seed), out, workers=executor,
        watch=partial(run_progress, quiet=quiet), allow_code=allow_code, data=flags.files,
    )  # fmt: skip
    record = retested(read(ledger), ids, run)
    if json == STDOUT:
        print(as_json(record).decode(), end="")
        return 0
    written = [out / "claims.html", out / "claims.json"]
    if json is not None:
        written.append(write(json, as_json(record)))
    printed([sections.first(record)], terminal(), full=not quiet)
    if not quiet:
        print("Written: " + ", ".join(map(str, written)))
    return 0
