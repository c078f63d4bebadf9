"""Training from options such as a folder and a model name, without a console.

`run.train` is the whole: it plans the run, examines the dataset, trains and writes the report.
"""
