"""Whether a setup fits its chips, and how fast it can be at best, before any chip is there."""
