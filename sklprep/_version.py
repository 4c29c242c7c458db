"""The version, which files record and the build reads; it imports nothing."""

__version__ = "0.2.0"
