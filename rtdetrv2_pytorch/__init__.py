"""RT-DETRv2 in PyTorch: models, data, training and export, independent of any platform."""
