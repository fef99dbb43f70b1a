"""Training: state, step, optimiser, sharding, checkpoints, logs."""
