"""The benchmark harness: ``python -m penstock.bench NAME``. A user's tool, not a test; see ``bench/README.md``."""
