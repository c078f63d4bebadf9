"""RT-DETRv2 in PyTorch: models, data, training and export, with no platform in sight."""
