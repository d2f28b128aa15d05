"""The worker process: dispatch, attempts, decisions and recovery."""
