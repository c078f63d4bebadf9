"""Commands without their subjects: parsing, tables, progress, logs. Only these modules print."""
