"""Rules on when a job may run, and the timeline of the queue."""
