"""What the instance keeps: one noun a module, all on one database and one folder of blobs."""
