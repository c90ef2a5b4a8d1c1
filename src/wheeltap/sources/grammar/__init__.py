"""A small English grammar, written for wheeltap, that generates subject-verb agreement items."""
