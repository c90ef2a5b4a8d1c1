"""What is read inside a clean model: units, contributions, activations."""
