"""The plan of a training before it starts: presets for a CPU, and an estimate of its time."""
