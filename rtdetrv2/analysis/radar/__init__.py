"""Label radar: annotation errors, found where labels and detections disagree."""
