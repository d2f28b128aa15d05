"""Which job may start now, and which resources it needs."""
