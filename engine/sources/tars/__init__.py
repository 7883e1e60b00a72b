"""Tar archives as sources, WebDataset's among them: read where they lie, never unpacked. See the README."""
