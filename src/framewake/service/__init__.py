"""A service that does not lose work: a queue in a database, workers, and an HTTP API."""
