"""What every layer may use: errors, boxes, ranks, seeds, meters, weights."""
