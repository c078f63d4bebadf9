"""Commands of the local instance: start it, fill it, train and serve in the apps."""
