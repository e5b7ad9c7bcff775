"""Measurements side by side, as files with date, commit and hardware; see ``compare``."""
