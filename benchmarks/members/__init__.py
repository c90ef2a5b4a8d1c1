"""What statistics over members are worth: coverage and wrong verdicts, on members whose true numbers are known."""
