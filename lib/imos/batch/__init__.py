"""Thousands of studies from a list, on one machine or a cluster."""
