"""How networks learn: batches, steps, checkpoints."""
