"""Exports of checkpoints, their verification, and the runtimes that run them."""
