"""Verbs of the suite ``seal``."""
