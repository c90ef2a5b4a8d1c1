"""Hypothesis without deadlines: the first example pays for imports, and a busy machine is slow."""

from hypothesis import settings

settings.register_profile("steady")
settings.load_profile("steady")
