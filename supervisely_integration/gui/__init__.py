"""The apps' own page, for machines that cannot reach the platform's scripts."""
