"""The page of an instance: projects, tasks and experiments in a browser."""
