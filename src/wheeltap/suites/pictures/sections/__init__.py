"""Sections of reports of the suite ``pictures``."""
