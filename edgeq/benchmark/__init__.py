"""Latency and health of a model on this machine; numpy and the standard library only."""
