"""The Supervisely apps: all code that depends on the platform."""
