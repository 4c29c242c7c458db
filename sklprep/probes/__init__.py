"""Linear probes: fitted, scored, and saved as files that hold no code."""
