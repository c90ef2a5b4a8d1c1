"""Seals: small files by which a deployed model is checked against the one that was audited."""

from wheeltap.suites.seal.making import Asked, Made, make
from wheeltap.suites.seal.record import Seal, load
from wheeltap.suites.seal.verifying import Verification, verify

__all__ = ["Asked", "Made", "Seal", "Verification", "load", "make", "verify"]
