"""Routes by which an orchestrator learns whether the process runs and takes requests."""

from fastapi import FastAPI
from starlette.responses import JSONResponse, Response

from limbeck.serving.api.admission import Admission
from limbeck.serving.keys import Keys
from limbeck.serving.rollout.follow import Rollout
from limbeck.serving.rollout.live import LiveService


def add_health_routes(
    app: FastAPI,
    service: LiveService,
    *,
    keys: Keys,
    admission: Admission,
    rollout: Rollout | None,
) -> None:
    """Liveness and readiness, as Kubernetes probes them."""

    @app.get("/healthz/live")
    async def is_live() -> dict[str, str]:
        """Whether the process runs."""
        return {"status": "live"}

    @app.get("/health", include_in_schema=False)
    @app.get("/healthz/ready", responses={503: {"description": "Not ready"}})
    async def is_ready() -> Response:
        """Whether it takes requests: its models are open, and it is not about to stop.

        Another server that is down makes this one no less ready, as long as a tier is there: other
        replicas would miss it as well, and none would be left to answer.
        """
        states = {name: tier.engine.state for name, tier in service.tiers.items()}
        own = {states[name] for name, tier in service.tiers.items() if not tier.config.remote}
        ready = not admission.is_draining and own <= {"ready"} and "ready" in states.values()
        content = {"status": "ready" if ready else "not ready", "tiers": states}
        content |= {"draining": True} if admission.is_draining else {}
        faults = _faults(service, rollout=rollout)
        if not keys.is_open:  # strangers may read this, and learn no paths from it
            faults = dict.fromkeys(faults, "a model cannot be opened; the log says why")
        content |= {"faults": faults} if faults else {}
        return JSONResponse(content, 200 if ready else 503)


def _faults(service: LiveService, *, rollout: Rollout | None) -> dict[str, str]:
    """Why a tier does not answer, or not with the model that it should have, by its name."""
    found = {
        name: tier.engine.broken_because
        for name, tier in service.tiers.items()
        if tier.engine.state == "broken"
    }
    for name, fault in (rollout.faults() if rollout is not None else {}).items():
        found[name] = f"{found[name]}; {fault}" if name in found else fault
    return found
