"""Data sets: listing, checks, splits, images, cached features."""
