"""The page for people: what it shows, as JSON, pictures and static files."""
