"""The door: OpenAI's protocol over HTTP."""
