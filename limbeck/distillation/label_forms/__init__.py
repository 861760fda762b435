"""In which forms a teacher's answers are written: answers, preferences, log-probabilities."""
