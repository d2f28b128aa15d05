"""The night shift: what runs when, what is recorded, who is told."""
