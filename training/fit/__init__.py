"""Training: network, checkpoints, run folder."""
