"""Models in service: engines that decode for many, tiers, a router, an OpenAI-like HTTP API."""
