"""Making checkpoints. (Fine-tuning comes later.)"""
