"""Sections of reports of the suite ``lens``."""
