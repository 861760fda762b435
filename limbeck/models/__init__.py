"""Model architectures, how they are built and loaded, and what in them can be cut or matched."""

MODELS = {
    "moe": "limbeck.models.building:MoeModel",
    "dense": "limbeck.models.building:DenseModel",
    "vision": "limbeck.models.seeing:VisionModel",
}
