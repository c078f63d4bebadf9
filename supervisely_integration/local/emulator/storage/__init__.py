"""The data of an instance: one module per resource, on one database and one folder of blobs."""
