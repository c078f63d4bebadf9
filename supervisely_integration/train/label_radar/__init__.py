"""The label radar after a training of the app: the search, and the queue for annotators."""
