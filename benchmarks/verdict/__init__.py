"""How many forwards a verdict takes: races that stop against designs of fixed size, and how often they are wrong."""
