"""A pipeline: declared, run, read and stopped."""
