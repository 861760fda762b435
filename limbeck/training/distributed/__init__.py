"""Training over several processes: ranks, sharded state, DeepSpeed."""
