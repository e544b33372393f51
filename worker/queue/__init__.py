"""Queue from the side of a worker: claims, wake tokens, the timer for the next look, nudges."""
