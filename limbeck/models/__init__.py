"""Model architectures, how they are built and loaded, and what in them can be cut or matched."""

MODELS = {
    "moe": "limbeck.models.builders:MoeModel",
    "dense": "limbeck.models.builders:DenseModel",
    "vision": "limbeck.models.vision.builder:VisionModel",
}
