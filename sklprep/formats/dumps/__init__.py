"""Dumps of other tools, read in place: one importer for each format, in one table."""
