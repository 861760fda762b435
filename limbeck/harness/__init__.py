"""lm-evaluation-harness on any model of Limbeck's, a checkpoint or a bundle, with local tasks."""
