"""Settings of a training, in the SDK's format: names, formats and whether they fit a project."""
