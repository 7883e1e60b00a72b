"""What a run tells of itself: report, progress, stalls, stacks; as text, as JSON, as pages."""
