"""Nets of the suite ``pictures``."""
