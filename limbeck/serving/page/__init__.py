"""The page for people: one static bundle, served as it is."""
