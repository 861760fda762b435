"""The HTTP API: OpenAI's protocol."""
