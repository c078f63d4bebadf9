"""Reference pages, generated from signatures and docstrings."""
