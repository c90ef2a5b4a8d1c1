"""Nets of the suite ``circuits``."""
