"""Models in service: engines that decode for many, tiers, a router, and one OpenAI-shaped door."""
