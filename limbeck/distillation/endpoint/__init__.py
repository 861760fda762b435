"""Labels a corpus through an OpenAI-compatible server: requests, responses, alignment."""
