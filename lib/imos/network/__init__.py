"""Torch modules only: encoders, similarity, memory stores, decoder, adapters, weights files."""
