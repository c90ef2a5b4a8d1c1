"""Readings of the suite ``lens``."""
