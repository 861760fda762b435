"""From a recipe to artifacts: check the wiring, order the stages, run each or reuse it by hash."""
