"""Studies: questions about kinds of nets, with rules fixed beforehand; one declaration a file."""
