"""Tools of the tests: a fake hub, a fake clock, rows."""
