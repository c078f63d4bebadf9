"""Recovery from failures during training: memory, non-finite numbers, lost ranks."""
