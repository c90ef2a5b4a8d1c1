"""Audits of the suite ``lens``."""
