"""Recipes of the suite ``pictures``."""
