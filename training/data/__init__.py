"""Data sets: download, listing, folds, images, cached features."""
