"""Experiments: the course, tuning, studies, plots."""
