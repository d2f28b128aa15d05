"""The model and the weights of a job after the run: chat, generate, fuse and test."""
