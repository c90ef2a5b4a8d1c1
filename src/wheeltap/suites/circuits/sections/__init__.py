"""Sections of reports of the suite ``circuits``."""
