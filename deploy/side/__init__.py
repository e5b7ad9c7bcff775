"""Stacks beside the service's: bulk runs and uploads."""
