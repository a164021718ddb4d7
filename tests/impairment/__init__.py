"""An unkind network for tests: a UDP proxy that loses, delays and shuffles, and a ladder on it."""
