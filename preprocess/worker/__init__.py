"""The worker process: what it is started with, what it and its parent say to each other, what it runs."""
