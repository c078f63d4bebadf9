"""Accuracy of training recipes: data sets x recipes x seeds, with spread, and public trainers."""
