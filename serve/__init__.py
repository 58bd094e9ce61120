"""The door for Ray Serve."""
