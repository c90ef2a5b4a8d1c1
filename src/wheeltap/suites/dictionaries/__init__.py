"""Dictionaries of a site's vectors, judged by what they are for: to approximate, to control and to interpret."""
