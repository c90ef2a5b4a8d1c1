"""What disturbed evaluations cost, in clean forwards: the engine's paths, and beside them what others do."""
