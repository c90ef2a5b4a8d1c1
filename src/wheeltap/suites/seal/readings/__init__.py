"""Readings of the suite ``seal``."""
