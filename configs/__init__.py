"""What the user may say: job files and machine settings. Strict, with suggestions."""
