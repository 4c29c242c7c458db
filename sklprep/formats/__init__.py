"""What lies on disk: sentence files and packs."""
