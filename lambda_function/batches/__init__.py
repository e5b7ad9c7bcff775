"""Many images at once: a request with several, and a batch of a bulk run."""
