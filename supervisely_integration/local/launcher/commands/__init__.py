"""The commands: click declarations without slow imports."""
