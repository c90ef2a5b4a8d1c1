"""Statistics of the suite ``lens``."""
