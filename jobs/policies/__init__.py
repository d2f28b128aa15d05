"""Rules that decide what lq does. Pure functions: values in, decision out."""
