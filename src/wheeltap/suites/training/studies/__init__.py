"""Studies of the suite ``training``."""
