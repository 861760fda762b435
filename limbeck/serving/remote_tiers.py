"""What has to hold before another server is a tier: it is not this service."""

import socket

from limbeck.contracts.errors import EndpointError
from limbeck.serving.config import ServeConfig


def check_not_itself(config: ServeConfig, *, host: str, port: int) -> None:
    """Nothing, when no tier is at the address that this service listens at.

    Raises:
        EndpointError: one is, and would answer itself for ever.
    """
    for tier in config.tiers:
        place = tier.remote
        if place is not None and place.port == port and _is_same(place.host, host):
            raise EndpointError(
                f"tier {tier.name}: {place.url} is this service itself; name another server, or "
                "another --port"
            )


def _is_same(there: str, here: str) -> bool:
    """Whether two hosts are one, where this process listens at the second one."""
    found, own = _addresses(there), _addresses(here)
    is_wildcard = bool(own & {"0.0.0.0", "::"})
    return bool(found & own) or (is_wildcard and any(map(_is_own, found)))


def _addresses(host: str) -> set[str]:
    try:
        return {str(item[4][0]) for item in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError):
        return set()  # nobody is there now; the tier's health says so


def _is_own(address: str) -> bool:
    """Whether an address is this machine's: only then can a socket have it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as found:
        try:
            found.bind((address, 0))
        except OSError:
            return False
        return True
