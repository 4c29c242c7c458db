"""Layouts on disk: sentence files, packs, dumps of other tools; and the protocol of sources."""
