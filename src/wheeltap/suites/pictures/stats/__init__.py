"""Statistics of the suite ``pictures``."""
