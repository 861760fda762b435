"""A recipe for somebody's own file: what the file holds, and a chain that can use it."""
