"""What every other package shares: the application object, paths, the Huey queue and file watches."""
