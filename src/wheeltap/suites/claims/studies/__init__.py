"""Studies of the suite ``claims``."""
