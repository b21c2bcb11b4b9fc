"""The fault run: a service under load that is killed, cut off and held up, and what must be true afterwards."""
