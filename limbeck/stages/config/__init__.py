"""Settings of each stage; read without torch, so that a recipe is checked at once."""
