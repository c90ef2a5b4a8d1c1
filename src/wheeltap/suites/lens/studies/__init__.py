"""Studies of the suite ``lens``."""
