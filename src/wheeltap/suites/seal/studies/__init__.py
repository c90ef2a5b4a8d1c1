"""Studies of the suite ``seal``."""
