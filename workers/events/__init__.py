"""The event log and its writer."""
