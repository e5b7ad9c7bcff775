"""Metrics, reports, the test log and the model card."""
