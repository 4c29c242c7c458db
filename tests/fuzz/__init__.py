"""Broken, hostile and interrupted input at length; ``python -m tests.fuzz`` prints the table."""
