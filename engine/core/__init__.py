"""The streaming machine: channels, stages and what runs their operations. Knows no pictures and no files."""
