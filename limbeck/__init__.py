"""From a large teacher and a domain's questions to small models that can be deployed."""

__version__ = "0.1.0"
