"""The package's own tests: wheeltap's contracts, kept by the classes that it adds."""

import io
from pathlib import Path
from typing import ClassVar

from rich.console import Console
from wheeltap_salt.audit import SaltAudit
from wheeltap_salt.confidence import Confidence, ConfidenceAudit
from wheeltap_salt.perturbation import Salt
from wheeltap_salt.recipe import Mislabeled
from wheeltap_salt.study import Labels

from wheeltap.audits.base import audits
from wheeltap.perturb import perturbations
from wheeltap.testing.contract import (
    AuditContract,
    PerturbationContract,
    ReadingContract,
    RecipeContract,
    StudyContract,
)


class TestSalt(PerturbationContract):
    perturbation = Salt
    doses = (0.5, 1.0, 0.1)
    sensitive_to = frozenset({"cancel"})
    draws = 128


class TestSaltAudit(AuditContract):
    audit = SaltAudit


class TestConfidence(ReadingContract):
    reading = Confidence


class TestConfidenceAudit(AuditContract):
    audit = ConfidenceAudit


class TestMislabeled(RecipeContract):
    recipe = Mislabeled
    settings: ClassVar = {"epochs": 1}
    other: ClassVar = {"wrong": 0.25, "epochs": 2}


class TestLabels(StudyContract):
    study = Labels
    settings: ClassVar = {"seeds": 3}

    def test_its_numbers_and_its_section_are_on_the_page_and_in_the_terminal(self, folder: Path) -> None:
        report, printed = self.run(folder), io.StringIO()
        page = report.html(folder / "report.html").read_text()
        report.text(Console(file=printed, width=100), full=True)
        for words in ("Loss by turned signs", "The worst net", "Turned signs cost it 0."):
            assert words in page and words in printed.getvalue(), words


def test_both_are_registered() -> None:
    assert perturbations.get("salt") is Salt
    assert audits.get("salt") is SaltAudit
