"""Images and annotations: from files to batches, and from detections to metrics."""
