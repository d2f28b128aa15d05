"""From a job file to a queued job, and changes to a job before its next attempt."""
