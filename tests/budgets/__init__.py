"""Budgets of keys."""
