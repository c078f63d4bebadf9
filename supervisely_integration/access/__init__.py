"""Access policy of the apps: which requests reach their routes, and from which pages."""
