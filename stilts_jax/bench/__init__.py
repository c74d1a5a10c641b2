"""What ``stilts bench`` times."""
