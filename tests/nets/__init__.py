"""Trained nets of which it is known what they hide, hold or use; the tests read them too."""
