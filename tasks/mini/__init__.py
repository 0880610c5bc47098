"""The embedded default: a generated world, so that the suite runs anywhere, offline, in minutes."""
