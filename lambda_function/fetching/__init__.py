"""Fetching a stranger's URL, or an S3 object."""
