"""Models for the servers that benchmarks start."""
