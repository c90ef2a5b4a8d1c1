"""Studies of the suite ``pictures``."""
