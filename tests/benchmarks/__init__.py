"""Speed and memory of lq beside its peers: `make bench`. No test; nothing here runs in `make test`."""
