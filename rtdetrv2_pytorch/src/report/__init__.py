"""The training report: one HTML page about a run."""
