"""Specs of readings of the suite ``lens``."""
