"""The methods of the platform's API."""
