"""Audits of the suite ``training``."""
