"""The job behind ``penstock dedup``. See the README beside this file."""
