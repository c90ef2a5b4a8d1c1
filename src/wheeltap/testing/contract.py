"""Contracts as pytest classes: subclass one in a test module, fill in the attributes, and pytest runs the checks.

from wheeltap.testing.contract import PerturbationContract

class TestSalt(PerturbationContract):
    perturbation = Salt
    doses = (0.1, 0.5)
"""

from wheeltap.testing.audit_contract import AuditContract
from wheeltap.testing.perturbation_contract import PerturbationContract
from wheeltap.testing.reading_contract import ReadingContract
from wheeltap.testing.recipe_contract import RecipeContract
from wheeltap.testing.study_contract import StudyContract

__all__ = [
    "AuditContract",
    "PerturbationContract",
    "ReadingContract",
    "RecipeContract",
    "StudyContract",
]
