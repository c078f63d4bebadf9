"""The training report: one page with everything that a run tells."""
