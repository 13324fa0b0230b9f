"""Fine-tuning, and making the default checkpoint."""
