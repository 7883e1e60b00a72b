"""What every job needs: its plan, its sinks and pools, its memory, its fingerprints, its way to an end."""
