"""The language and the laws of lq: values and pure functions. No I/O, no clock, no third-party system."""
