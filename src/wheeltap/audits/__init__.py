"""Audits: each asks for trials and judges their outcomes; none ever touches a model."""

from wheeltap.audits.base import Audit, Case, Draft, audits, create

__all__ = ["Audit", "Case", "Draft", "audits", "create"]
