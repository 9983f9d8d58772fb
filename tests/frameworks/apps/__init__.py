"""The served apps: an example of the README, with a handler for each behaviour."""
