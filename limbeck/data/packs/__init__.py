"""Domain packs: their schema, and the questions made from their facts."""
