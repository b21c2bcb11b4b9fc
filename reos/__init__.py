"""Real Estate OS: the open, self-hosted operating system of a real-estate company."""

__version__ = "0.1.0"
