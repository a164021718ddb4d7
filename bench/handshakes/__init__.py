"""Handshakes: how many hops and channels a core opens, and how soon a first message is answered."""
