"""``wheeltap seal``."""

import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from wheeltap.cli.whole import Whole
from wheeltap.core.plain import many

if TYPE_CHECKING:
    from wheeltap.suites.seal.contents import SealedContents
    from wheeltap.suites.seal.inputs import Choice
    from wheeltap.suites.seal.making import Made
    from wheeltap.suites.seal.record import Lineage


def seal(  # noqa: PLR0913 - a door: each is a choice of its own
    model: Annotated[str, Parameter(help="digits, smollm2, hf:FOLDER, gguf:FILE or module:callable.")],
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"], help="Write the seal to this file.")] = Path("model.seal"),
    data: Annotated[Path | None, Parameter(help="Examples that inputs are taken from, as for audit.")] = None,
    inputs: Annotated[Whole, Parameter(validator=Number(gte=2, lte=64), help="Inputs that the seal keeps.")] = 16,
    name: Annotated[
        str, Parameter(help="What the model is called; by default as its folder or file. See --expect-name of verify.")
    ] = "",
    seed: Annotated[
        Whole | None, Parameter(help="What all that is random is drawn from; drawn itself where not given.")
    ] = None,
    audit: Annotated[
        Path | None, Parameter(help="The report (JSON) of the audit that this model went through: its answer is kept.")
    ] = None,
    of: Annotated[Path | None, Parameter(help="The seal of the model that this one was converted from.")] = None,
    conversion: Annotated[str, Parameter(help="With --of: what was done to it, in words.")] = "",
    expires: Annotated[str, Parameter(help="Last day on which the seal holds, YYYY-MM-DD.")] = "",
    sign: Annotated[
        Path | None, Parameter(help="Sign it with this Ed25519 private key (PEM), which only you can read.")
    ] = None,
    quiet: Annotated[bool, Parameter(negative="", help="Print no progress.")] = False,
) -> int:
    """Writes a small file by which a deployed copy of this model can be checked.

    The file holds digests of all tensors, as they are and cast to 16 bits as a whole, and of the structure: modules,
    code, hooks, settings; and inputs that depend on most weights, what the model and its blocks answer, and how far
    harmless variation moves that. Check a model with it: wheeltap verify MODEL FILE.

    Try it:

      wheeltap seal digits -o digits.seal
      wheeltap audit hf:model --json audit.json && wheeltap seal hf:model -o model.seal --audit audit.json
      wheeltap seal hf:model-int8 -o int8.seal --of model.seal --conversion "int8, one scale per row"
    """
    from wheeltap import sources
    from wheeltap.cli.progress import steps
    from wheeltap.report.files import require_writable
    from wheeltap.suites.seal.making import Asked, make
    from wheeltap.suites.seal.record import signed

    require_writable(out)
    lineage = _lineage(of, conversion)
    loaded = sources.load(model, data=data, name=name)
    asked = Asked(
        inputs=inputs, seed=secrets.randbits(48) if seed is None else seed, expires=expires, of=lineage,
        audit=_answer(audit, loaded.subject.record.fingerprint),
    )  # fmt: skip
    with steps("sealing", quiet=quiet) as watch:
        made = make(loaded.subject, loaded.task, asked, watch=watch)
    kept = made.seal if sign is None else signed(made.seal, sign)
    kept.save(out)
    _tell(made, out)
    return 0


def _tell(made: "Made", out: Path) -> None:
    from wheeltap.report.lines import terminal, wrapped

    body, choice, console = made.seal.body, made.choice, terminal()
    total = body.inputs.chosen
    count = len(body.stored[0].seen.output.array())
    wrapped(console, f"Sealed {body.name}: {out} ({out.stat().st_size / 1024:.0f} kB).", style="bold")
    for line in (
        f"{count} inputs ({many(total, 'example')}, {count - total} drawn). {_reached(choice)}",
        "Any tensor, module, setting, hook or code that changes is altered; casts of the whole model to bfloat16 or "
        "float16 pass.",
        _beside(body.contents),
        *made.thinned,
        f"Tolerance: {body.tolerances.output:.1g} of the outputs' size, {body.tolerances.passes} harmless passes on "
        f"{body.tolerances.device}.",
        f"Check a copy: wheeltap verify MODEL {out}",
    ):
        wrapped(console, line)


def _reached(choice: "Choice") -> str:
    """How many weights the inputs see."""
    if choice.unknown == 1.0:
        return "Its outputs have no gradients: inputs are taken as they come, and how many weights they see is unknown."
    unknown = f" Of {choice.unknown:.0%} there is no gradient: they are not counted." if choice.unknown else ""
    return (
        f"To first order, {choice.reached:.0%} of all weights, with their sign flipped, move the outputs beyond the "
        f"tolerance ({choice.first:.0%} with the first five inputs).{unknown}"
    )


def _beside(contents: "SealedContents | None") -> str:
    """What is sealed beside the weights."""
    if contents is None:
        return "The model comes from no folder or file: no tokenizer, chat template, settings or code are sealed."
    parts = [f"{len(several)} of {part}" for part, several in sorted(contents.parts.items())]
    return f"Beside the weights: {', '.join(parts)}. Any that changes what it means is altered."


def _answer(report: Path | None, fingerprint: str) -> list[str]:
    """The answer of an audit of this model, line by line, and the digest of its report."""
    if report is None:
        return []
    from wheeltap.core import canon
    from wheeltap.core.bounded import contents
    from wheeltap.core.errors import UsageError
    from wheeltap.report.report import Report

    record, data = Report.read(report).record, contents(report, "report")
    if fingerprint not in {subject.fingerprint for subject in record.subjects}:
        raise UsageError(
            "The audit is of another model.", where=str(report), expected=f"a report on model {fingerprint[:12]}",
            got=", ".join(f"{subject.name} {subject.fingerprint[:12]}" for subject in record.subjects[:3]),
            do="Audit this model, and give that report.",
        )  # fmt: skip
    return [*record.headline.splitlines(), f"report {canon.digest('report', data)}"]


def _lineage(of: Path | None, conversion: str) -> "Lineage | None":
    from wheeltap.core.errors import UsageError
    from wheeltap.suites.seal.record import Lineage, load, require_valid

    if of is None and conversion:
        raise UsageError("A conversion is of something.", expected="--of FILE.seal", got="--conversion alone")
    if of is None:
        return None
    require_valid(before := load(of))
    return Lineage(before.digest, conversion or "not said")
