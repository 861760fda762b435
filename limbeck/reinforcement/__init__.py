"""Training on preferences and rewards: DPO, GRPO, their rollouts and rewards."""
