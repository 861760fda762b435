"""The one training loop; it depends on no single objective, no corpus and no stage."""
