"""Checkpoints and tokenizers by tier: one file a backbone."""
