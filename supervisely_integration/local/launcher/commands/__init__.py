"""The commands: click declarations that import nothing slow."""
