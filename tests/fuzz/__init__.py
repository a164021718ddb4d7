"""Hostile inputs for every decoder and state machine of the project; run by `./dev fuzz`."""
