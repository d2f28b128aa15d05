"""The worker as a service of launchd or systemd."""
