"""Specs of readings of the suite ``seal``."""
