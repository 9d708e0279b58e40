"""Continuous batching: queue, KV blocks, and a batch that is composed anew for each step."""
