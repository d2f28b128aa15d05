"""The demo and its tiny model."""
