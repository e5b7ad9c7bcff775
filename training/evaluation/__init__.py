"""Evaluation: metrics, reports, test log, model card."""
