"""Audits: each asks for trials and judges their outcomes; none ever touches a model."""

from wheeltap.audits.base import Audit, Case, Hypothesis, audits, create

__all__ = ["Audit", "Case", "Hypothesis", "audits", "create"]
