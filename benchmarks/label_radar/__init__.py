"""Proof of the label radar on spoiled labels."""
