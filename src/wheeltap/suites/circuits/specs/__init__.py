"""Specs of readings of the suite ``circuits``."""
