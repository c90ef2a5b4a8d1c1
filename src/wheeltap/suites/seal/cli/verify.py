"""``wheeltap verify``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Parameter

from wheeltap.cli.telling import STDOUT

if TYPE_CHECKING:
    from wheeltap.suites.seal.record import Seal
    from wheeltap.suites.seal.verifying import Verification

_ANSWERS: Final = {
    "identical": "Identical: every bit of the weights, and all structure, is as sealed; outputs are within tolerance.",
    "equivalent": "Equivalent: the sealed model, cast as a whole or inside a wrapper that only calls it.",
    "other library code": "Other library code: the sealed weights and structure, run by other installed code.",
    "same on the inputs asked": "Same on the inputs asked: not shown to be the sealed model.",
    "altered": "ALTERED: this is not the model that was sealed.",
    "other model": "OTHER MODEL: this is not the model that was sealed.",
}


def verify(  # noqa: PLR0913 - a door: each is a choice of its own
    model: Annotated[str, Parameter(help="digits, smollm2, hf:FOLDER, gguf:FILE or module:callable.")],
    seal: Annotated[Path, Parameter(help="The file that wheeltap seal wrote.")],
    *,
    full: Annotated[
        bool, Parameter(negative="", help="Ask every sealed input, also where a change is sure after a few.")
    ] = False,
    key: Annotated[Path | None, Parameter(help="Require a signature by this Ed25519 public key (PEM).")] = None,
    expect_name: Annotated[
        str, Parameter(help="Require a seal of the model with this name, as --name of wheeltap seal gave it.")
    ] = "",
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
      wheeltap verify hf:deployed model.seal --full
      wheeltap verify hf:deployed model.seal --key public.pem --expect-name support-7b
    """
    import msgspec

    from wheeltap.core.plain import escaped
    from wheeltap.report.files import require_writable, write
    from wheeltap.suites.seal.record import load
    from wheeltap.suites.seal.verifying import LIBRARY

    if json is not None and json != STDOUT:
        require_writable(json)
    held = load(seal)
    found = _verified(model, held, full=full, key=key, name=expect_name)
    code = 0 if found.passed or (allow_other_library and found.verdict == LIBRARY) else 1
    said = msgspec.json.encode({**msgspec.structs.asdict(found), "passed": code == 0})
    text = escaped(msgspec.json.format(said, indent=2))
    if json == STDOUT:
        print(text.decode())
        return code
    _tell(found, held, key=key, named=bool(expect_name))
    if json is not None:
        print(f"Written: {write(json, text)}")
    return code


def _verified(model: str, held: "Seal", *, full: bool, key: Path | None, name: str) -> "Verification":
    """Loads the model and verifies it, with a spinner."""
    from wheeltap import sources
    from wheeltap.cli.progress import said
    from wheeltap.suites.seal.verifying import verify as verified

    with said("loading"):
        subject = sources.load_model(model)
    with said("verifying"):
        return verified(subject, held, full=full, key=key, name=name)


def _tell(found: "Verification", held: "Seal", *, key: Path | None, named: bool) -> None:
    from wheeltap.report.lines import terminal, wrapped

    console = terminal()
    wrapped(console, _ANSWERS[found.verdict], style="bold")
    for line in (*_lines(found), *_facts(held), *_vouched(held, key=key, named=named)):
        wrapped(console, line)


def _lines(found: "Verification") -> list[str]:
    """What else is said, a line each."""
    from wheeltap.suites.seal.verifying import LIBRARY, SAME

    lines = list[str]()
    if found.passed and found.conversion and found.conversion != "as sealed":
        lines.append(f"Its weights are those of {found.name}, cast: {found.conversion}.")
    if found.distance > 1.0:
        lines.append(
            f"Outputs differ by {found.share:.2g} of their spread over inputs ({found.distance:,.0f} tolerances)."
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
    return [*lines, *found.notes, f"{found.inputs} inputs; {found.forwards:.1f} passes over the sealed inputs."]


def _facts(held: "Seal") -> list[str]:
    """What the seal says of its model."""
    body, lines = held.body, list[str]()
    if body.audit:
        lines.append(f"Audit of the sealed model, as its report said when it was sealed: {body.audit[0]}")
    if body.of is not None:
        lines.append(f"Converted from the model of seal {body.of.digest[:12]}: {body.of.conversion}.")
    return lines


def _vouched(held: "Seal", *, key: Path | None, named: bool) -> list[str]:
    """Of which model the seal is, since when and until when, and who vouches for it."""
    body, made = held.body, held.signature
    until = f"; it holds until {body.expires}" if body.expires else ""
    lines = [f"Seal of the model {body.name}, made on {body.sealed} (UTC){until}."]
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
