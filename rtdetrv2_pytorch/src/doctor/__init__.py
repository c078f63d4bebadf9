"""What is wrong with the data, and what the trainer does about it."""
