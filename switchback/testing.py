"""A pytest plugin for replay tests: `given`, `event_log`, `replay`."""
