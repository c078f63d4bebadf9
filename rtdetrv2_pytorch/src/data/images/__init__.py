"""Image files to pixels: decoding, caches, resizing for the network."""
