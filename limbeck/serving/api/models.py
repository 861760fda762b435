"""Routes that list the tiers as models."""

import time
from typing import Any

from fastapi import FastAPI

from limbeck.serving.api.errors import errors, no_model
from limbeck.serving.config import AUTO
from limbeck.serving.rollout.live import LiveService


def add_model_routes(app: FastAPI, service: LiveService, *, default_tier: str) -> None:
    """OpenAI's list of models: the tiers and `auto`, the default one first."""
    created = int(time.time())

    @app.get("/v1/models", responses=errors(401, 403))
    async def list_models() -> dict[str, Any]:
        """The tiers, and `auto`, which leaves the choice to the router."""
        names = [AUTO, *service.tiers]
        first = sorted(names, key=lambda name: name != default_tier)
        return {
            "object": "list",
            "data": [_describe(name, service=service, created=created) for name in first],
        }

    @app.get("/v1/models/{name:path}", responses=errors(401, 403, 404))
    async def show_model(name: str) -> dict[str, Any]:
        """One of them."""
        if name != AUTO and name not in service.tiers:
            raise no_model(name, known=[AUTO, *service.tiers])
        return _describe(name, service=service, created=created)


def _describe(name: str, *, service: LiveService, created: int) -> dict[str, Any]:
    """A tier or `auto`, as OpenAI's clients read a model, with what is known of it."""
    found: dict[str, Any] = {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "limbeck",
    }
    if name in service.tiers:
        tier = service.tiers[name]
        info = tier.engine.info
        found["limbeck"] = {
            "state": tier.engine.state,
            "circuit": tier.circuit.state.position,
            "model_key": tier.model_key,
            "parameters": info.parameters if info else None,
            "weight_bytes": info.weight_bytes if info else None,
            "max_tokens": info.max_tokens if info else None,
        }
        if candidate := service.candidates.get(name):
            found["limbeck"]["candidate"] = {
                "state": candidate.engine.state,
                "model_key": candidate.model_key,
            }
    elif facts := service.facts.facts:
        # Not a model of its own: nobody can name it, and `auto` asks it first.
        found["limbeck"] = {
            "facts": {
                "pack": service.facts.pack,
                "model_key": service.facts.key,
                "num_facts": len(facts),
            }
        }
    return found
