"""Propagation: one volume or video, from the painted slices to the label map of every slice."""
