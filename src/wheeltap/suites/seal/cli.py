"""``wheeltap seal`` and ``wheeltap verify``."""

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
from cyclopts import App, Parameter
from cyclopts.validators import Number

from wheeltap.cli.options import STDOUT, Whole
from wheeltap.core.plain import many

if TYPE_CHECKING:
    from wheeltap.suites.seal.making import SealOptions, SealReport
    from wheeltap.suites.seal.record import Lineage, Seal
    from wheeltap.suites.seal.verifying import Verification

_ANSWERS: Final = {
    "identical": "Identical: every bit of the weights, and all structure, is as sealed; outputs are within tolerance.",
    "equivalent": "Equivalent: the sealed model, cast as a whole or inside a wrapper that only calls it.",
    "other library code": "Other library code: the sealed weights and structure, run by other installed code.",
    "same on the inputs asked": "Same on the inputs asked: not shown to be the sealed model.",
    "altered": "ALTERED: this is not the model that was sealed.",
    "other model": "OTHER MODEL: this is not the model that was sealed.",
}


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class SealFlags:
    """What a seal is to hold."""

    inputs: Annotated[Whole, Parameter(validator=Number(gte=2, lte=64), help="Inputs that the seal keeps.")] = 16
    seed: Annotated[
        Whole | None, Parameter(help="What all that is random is drawn from; drawn itself where not given.")
    ] = None
    audit: Annotated[
        Path | None, Parameter(help="The report (JSON) of the audit that this model went through: its answer is kept.")
    ] = None
    of: Annotated[Path | None, Parameter(help="The seal of the model that this one was converted from.")] = None
    conversion: Annotated[str, Parameter(help="With --of: what was done to it, in words.")] = ""
    expires: Annotated[str, Parameter(help="Last day on which the seal holds, YYYY-MM-DD.")] = ""
    sign: Annotated[
        Path | None, Parameter(help="Sign it with this Ed25519 private key (PEM), which only you can read.")
    ] = None

    def options(self, fingerprint: str, lineage: "Lineage | None") -> "SealOptions":
        """As ``make`` takes them, of a model with this fingerprint."""
        from wheeltap.suites.seal.making import SealOptions

        seed = secrets.randbits(48) if self.seed is None else self.seed
        audit = _answer(self.audit, fingerprint)
        return SealOptions(inputs=self.inputs, seed=seed, expires=self.expires, of=lineage, audit=audit)


_SEAL = SealFlags()

seal = App(name="seal", group="Deploy", help_format="plaintext")


@seal.default
def _seal(
    model: Annotated[str, Parameter(help="digits, hf:FOLDER, gguf:FILE or another of: wheeltap list models.")],
    *,
    file: Annotated[Path, Parameter(name=["--file", "-o"], help="Write the seal to this file.")] = Path("model.seal"),
    data: Annotated[Path | None, Parameter(help="Examples that inputs are taken from, as for audit.")] = None,
    name: Annotated[
        str, Parameter(help="What the model is called; by default as its folder or file. See --expect-name of verify.")
    ] = "",
    held: SealFlags = _SEAL,
    quiet: Annotated[bool, Parameter(negative="", help="Print no progress.")] = False,
) -> int:
    """Writes a small file by which a deployed copy of this model can be checked.

    The file holds digests of all tensors, as they are and cast to 16 bits as a whole, and of the structure: modules,
    code, hooks, settings; and inputs at random, the outputs of the model and its blocks on them, and how far harmless
    variation moves these. Check a model with it: wheeltap verify MODEL FILE.

    Try it:

      wheeltap seal digits -o digits.seal
      wheeltap audit hf:model --json audit.json && wheeltap seal hf:model -o model.seal --audit audit.json
      wheeltap seal hf:model-int8 -o int8.seal --of model.seal --conversion "int8, one scale per row"
    """
    from wheeltap import sources
    from wheeltap.cli.progress import step_progress
    from wheeltap.report.files import require_writable
    from wheeltap.suites.seal.making import make
    from wheeltap.suites.seal.record import signed

    require_writable(file)
    lineage = _lineage(held.of, held.conversion)
    loaded = sources.load(model, data=data, name=name)
    options = held.options(loaded.subject.record.fingerprint, lineage)
    with step_progress("sealing", quiet=quiet) as watch:
        made = make(loaded.subject, loaded.task, options, watch=watch)
    (made.seal if held.sign is None else signed(made.seal, held.sign)).save(file)
    _print_sealed(made, file)
    return 0


def _print_sealed(made: "SealReport", file: Path) -> None:
    from wheeltap.core.plain import terminal
    from wheeltap.report.words import wrapped

    body, console = made.seal.body, terminal()
    count = len(body.stored[0].seen.output.array())
    beside = "The model comes from no folder or file: no tokenizer, chat template, settings or code are sealed."
    if body.contents is not None:
        parts = [f"{len(several)} of {part}" for part, several in sorted(body.contents.parts.items())]
        beside = f"Beside the weights: {', '.join(parts)}. Any that changes what it means is altered."
    wrapped(console, f"Sealed {body.name}: {file} ({file.stat().st_size / 1024:.0f} kB).", style="bold")
    for line in (
        f"{many(count, 'input')} at random. Any tensor, module, setting, hook or code that changes is altered; casts "
        "of the whole model to bfloat16 or float16 pass.",
        beside,
        *made.notes,
        f"Tolerance: {body.tolerances.output:.1g} of the outputs' size, {body.tolerances.passes} harmless passes on "
        f"{body.tolerances.device}.",
        f"Check a copy: wheeltap verify MODEL {file}",
    ):
        wrapped(console, line)


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


verify = App(name="verify", group="Deploy", help_format="plaintext")


@verify.default
def _verify(
    model: Annotated[str, Parameter(help="digits, hf:FOLDER, gguf:FILE or another of: wheeltap list models.")],
    sealed: Annotated[Path, Parameter(help="The file that wheeltap seal wrote.")],
    *,
    key: Annotated[Path | None, Parameter(help="Require a signature by this Ed25519 public key (PEM).")] = None,
    expect_name: Annotated[
        str | None, Parameter(help="Require a seal of the model with this name, as --name of wheeltap seal gave it.")
    ] = None,
    allow_other_library: Annotated[
        bool,
        Parameter(
            negative="",
            help="Exit with 0 also where weights and structure are as sealed and installed packages are others.",
        ),
    ] = False,
    json: Annotated[
        Path | None,
        Parameter(allow_leading_hyphen=True, help="Write the result as JSON to this file; - for the output."),
    ] = None,
) -> int:
    """Whether a model is the one that was sealed: as it was, converted harmlessly, or altered; and where and how.

    Exit codes: 0 identical or equivalent; 1 anything else; 2 it could not be verified, which is never a pass.

    Try it:

      wheeltap verify digits digits.seal
      wheeltap verify hf:deployed model.seal
      wheeltap verify hf:deployed model.seal --key public.pem --expect-name support-7b
    """
    from wheeltap import sources
    from wheeltap.cli.progress import spinner
    from wheeltap.core.plain import escaped, terminal
    from wheeltap.report.files import require_writable, write
    from wheeltap.report.words import wrapped
    from wheeltap.suites.seal.record import load, require_valid
    from wheeltap.suites.seal.verifying import LIBRARY
    from wheeltap.suites.seal.verifying import verify as verified

    if json is not None and json != STDOUT:
        require_writable(json)
    require_valid(held := load(sealed), key=key, name=expect_name)
    with spinner("loading"):
        subject = sources.load_model(model)
    with spinner("verifying"):
        found = verified(subject, held, key=key, name=expect_name)
    code = 0 if found.passed or (allow_other_library and found.verdict == LIBRARY) else 1
    result = msgspec.json.encode({**msgspec.structs.asdict(found), "passed": code == 0})
    text = escaped(msgspec.json.format(result, indent=2))
    if json == STDOUT:
        print(text.decode())
        return code
    console = terminal()
    wrapped(console, _ANSWERS[found.verdict], style="bold")
    for line in (*_lines(found), *_facts(held, key=key, named=expect_name is not None)):
        wrapped(console, line)
    if json is not None:
        print(f"Written: {write(json, text)}")
    return code


def _lines(found: "Verification") -> list[str]:
    """What else is said, a line each."""
    from wheeltap.suites.seal.verifying import LIBRARY, SAME

    lines = list[str]()
    if found.passed and found.conversion and found.conversion != "as sealed":
        lines.append(f"Its weights are those of {found.name}, cast: {found.conversion}.")
    if found.distance > 1.0:
        tolerances = float(f"{found.distance:.2g}")  # further digits differ from one processor to another
        lines.append(
            f"Outputs differ by {found.share:.2g} of their spread over inputs ({tolerances:,.16g} times the tolerance)."
        )
    if found.block:
        lines.append(f"First block that changed: {found.block}.")
    if found.kind:
        lines.append(f"Likely kind: {found.kind}.")
    if found.detail:
        lines.append(found.detail)
    lines += [f"Not as sealed: {one}" for one in found.files]
    if found.bits:
        lines.append(f"Strength: {found.bits} bits, by digests of all tensors and of the structure.")
    elif found.verdict == SAME:
        lines.append("Strength: 0 bits, by outputs alone. Whoever knows the seal can fit a net to it.")
    elif found.verdict == LIBRARY:
        lines.append("Strength: 0 bits for the installed code; weights and structure are as sealed.")
    return [*lines, *found.notes]


def _facts(held: "Seal", *, key: Path | None, named: bool) -> list[str]:
    """Of which model the seal is, what it says of that, since when and until when it holds, who vouches for it."""
    body, made, lines = held.body, held.signature, list[str]()
    if body.audit:
        lines.append(f"Audit of the sealed model, as its report said when it was sealed: {body.audit[0]}")
    if body.of is not None:
        lines.append(f"Converted from the model of seal {body.of.digest[:12]}: {body.of.conversion}.")
    until = f"; it holds until {body.expires}" if body.expires else ""
    lines.append(f"Seal of the model {body.name}, made on {body.sealed} (UTC){until}.")
    if made is None:
        lines.append("The seal is not signed: whoever can write the file can write another.")
    elif key is None:
        lines.append(
            f"Signed by key {made.key[:16]}, which you did not name: anyone can sign. Name it with --key FILE."
        )
    else:
        lines.append(f"Signed by key {made.key[:16]}, as {key} requires.")
        if not named:
            lines.append(
                "Another model with a seal by this key would pass with that seal: --expect-name requires this one."
            )
    return lines
