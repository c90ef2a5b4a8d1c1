"""Audits of the suite ``circuits``."""
