"""Training of the weights: samples, losses, loops."""
