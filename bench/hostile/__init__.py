"""Asks of honest agents while a peer sins: how late, how large the programs, what is counted."""
