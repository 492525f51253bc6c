"""Readers of labelled data sets, and the sequences that are judged."""
