"""Sources of the suite ``pictures``."""
