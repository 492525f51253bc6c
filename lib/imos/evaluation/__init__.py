"""Evaluation: whole cases through the public session, judged, beside untrained baselines."""
