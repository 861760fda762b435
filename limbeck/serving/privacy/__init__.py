"""What identifies a person, taken out of texts before they are stored or logged; no model."""

from limbeck.serving.privacy.redact import Redacted, redact

__all__ = ["Redacted", "redact"]
