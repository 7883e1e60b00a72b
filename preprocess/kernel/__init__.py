"""Resample, crop and normalize with JAX: a kernel that is compiled once for all sizes of pictures."""
