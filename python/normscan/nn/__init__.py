"""Parts that two families or more share."""
