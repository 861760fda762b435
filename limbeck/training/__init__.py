"""The one training loop; it knows no objective, no corpus and no stage."""
