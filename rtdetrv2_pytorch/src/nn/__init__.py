"""Networks that know nothing of detection: building blocks and backbones."""
