"""What lies on disk, sentence files and packs, and what every source of rows can do."""
