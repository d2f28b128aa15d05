"""What the verbs show in a terminal."""
