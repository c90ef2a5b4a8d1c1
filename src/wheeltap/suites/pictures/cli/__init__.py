"""Verbs of the suite ``pictures``."""
