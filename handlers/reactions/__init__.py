"""Handlers that answer events with commands. They keep no state but what they fold from the log."""
