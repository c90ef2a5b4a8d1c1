"""Nets that draw a picture, moved weight by weight: how the picture answers, and what hidden units hold."""
