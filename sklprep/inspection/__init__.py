"""What data holds, and what in it would spoil a published score."""
