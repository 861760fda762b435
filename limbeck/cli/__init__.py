"""The commands of `limbeck`. Importing them loads no torch."""
