"""Teachers: a model in memory, recorded signals, an endpoint, several at once."""
