"""The data doctor: find problems in a data set and report how the trainer handles them."""
