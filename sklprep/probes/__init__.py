"""Linear probes that leave the sweep: fitted, scored, and kept as a file without code."""
