"""What confines a worker process on request."""
