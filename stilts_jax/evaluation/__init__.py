"""Predictions, the official metrics, retrieval and mining."""
