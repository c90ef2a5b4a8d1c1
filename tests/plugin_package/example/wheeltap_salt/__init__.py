"""A perturbation and an audit that another package adds to wheeltap through entry points."""
