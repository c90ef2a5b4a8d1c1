"""Readings of the suite ``circuits``."""
