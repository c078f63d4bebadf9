"""The time of a training: durations, estimates, and a limit."""
