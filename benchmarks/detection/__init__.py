"""Claims that a disturbance detects something, as tables of scores, and what it adds to cheaper ones."""
