"""The values of lq: job specification, records, states, events and errors."""
