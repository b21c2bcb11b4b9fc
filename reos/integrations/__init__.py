"""Adapters to the outside, each behind a small protocol."""
