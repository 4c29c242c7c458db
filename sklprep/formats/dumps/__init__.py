"""Dumps of other tools, read in place: an importer a format, behind one table."""
