"""The Supervisely apps: everything that knows the platform."""
