"""Tasks: what a domain is to training, evaluation and prediction."""
