"""What becomes of a trained checkpoint: exports, the runtimes that run them, and their proof."""
