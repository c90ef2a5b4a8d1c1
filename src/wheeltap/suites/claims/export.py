"""A ledger for other programs: JSON, or an RO-Crate with its claims, the works that it cites, and a run."""

import importlib
from pathlib import Path
from typing import Any

from wheeltap.core.errors import FileError, MissingExtra
from wheeltap.suites.claims.ledger import GRADES, Claim, Ledger
from wheeltap.suites.claims.record import ClaimsRecord, as_json


def to_json(ledger: Ledger, run: ClaimsRecord | None = None) -> bytes:
    """Every field of every claim, and what a run of retests found."""
    return as_json({"schema": "wheeltap.claims.ledger/1", "grades": GRADES, "claims": ledger.claims, "run": run})


def to_crate(ledger: Ledger, place: Path, run: Path | None = None) -> None:
    """Writes an RO-Crate, a folder or a ``.zip``, with the files of a ledger and the ``claims.json`` of a run.

    Raises:
        MissingExtra: If rocrate is not installed.
        FileError: If it cannot be written.
    """
    try:
        rocrate, model = importlib.import_module("rocrate.rocrate"), importlib.import_module("rocrate.model")
    except ImportError as error:
        raise MissingExtra("rocrate", "claims", needed_for="claims export --format ro-crate") from error
    crate: Any = rocrate.ROCrate()
    crate.name = "A ledger of claims"
    crate.description = "Claims of the literature: graded sources, dated verdicts, and the studies that re-test them."
    dates = [claim.verdict.date for claim in ledger.claims if claim.verdict.date is not None]
    crate.datePublished = str(max(dates)) if dates else None

    def add(identifier: str, kind: str, /, **fields: Any) -> Any:
        return crate.add(model.ContextEntity(crate, identifier, properties={"@type": kind, **fields}))

    toml, files = {"encodingFormat": "application/toml"}, dict[Path, Any]()
    for file in dict.fromkeys(claim.file for claim in ledger.claims):
        files[file] = crate.add_file(str(file), dest_path=f"ledger/{file.name}", properties=toml)
    for grade, said in GRADES.items():
        add(f"#grade-{grade}", "DefinedTerm", name=grade, description=said)
    crate.root_dataset["mentions"] = [_claim(claim, add, files[claim.file]) for claim in ledger.claims]
    if run is not None:
        crate.add_file(str(run), dest_path="claims.json", properties={"encodingFormat": "application/json"})
    try:
        crate.write_zip(str(place)) if place.suffix == ".zip" else crate.write(str(place))
    except OSError as error:
        raise FileError.of(error, place, what="The crate cannot be written.") from error


def _claim(claim: Claim, add: Any, file: Any) -> Any:
    """A claim, and a review of it for each source, with side and grade."""
    made = add(
        f"#{claim.id}", "Claim", name=claim.id, text=claim.statement, isPartOf=file, abstract=claim.verdict.because,
        creativeWorkStatus=claim.verdict.word, dateModified=str(claim.verdict.date or ""),
    )  # fmt: skip
    for number, source in enumerate(claim.sources, 1):
        more: dict[str, Any] = {"additionalType": {"@id": f"#grade-{source.grade}"}} if source.grade else {}
        if address := source.url or (f"https://arxiv.org/abs/{source.arxiv}" if source.arxiv else ""):
            title, year = f"{source.name} {source.title}".strip(), {"datePublished": str(source.year or "")}
            more["citation"] = add(address, "ScholarlyArticle", name=title, **year)
        add(f"#{claim.id}-source-{number}", "Review", itemReviewed=made, reviewAspect=source.side, name=source.name,
            reviewBody=source.says, **more)  # fmt: skip
    return made
