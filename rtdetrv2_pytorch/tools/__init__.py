"""Command lines of the engine; the only modules here that print."""
