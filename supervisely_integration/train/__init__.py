"""The Supervisely training app."""
