"""The HTTP server of the local instance and its storage."""
