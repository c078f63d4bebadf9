"""Building blocks and backbones, independent of detection."""
