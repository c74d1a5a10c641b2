"""``stilts bench``: how fast this machine trains and predicts."""
