"""Measurements side by side, kept as files with date, commit, hardware and instruction sets."""
