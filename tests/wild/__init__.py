"""Job files in the style of public ones; a comment in each gives its source and the expected result."""
