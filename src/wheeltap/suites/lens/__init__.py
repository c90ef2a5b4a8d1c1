"""The benchmark lens: recorded answers, votes, ambiguity and contamination."""
