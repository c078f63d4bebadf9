"""The command line of the local instance; it runs the apps as processes."""
