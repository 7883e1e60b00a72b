"""Parquet files: parts that never change."""
