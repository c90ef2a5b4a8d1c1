"""Sources of the suite ``lens``."""
