"""A judge behind an OpenAI-compatible server compares two models' answers, in both orders."""
