"""The engine: the only place that touches a model's weights, and always gives them back to the bit."""
