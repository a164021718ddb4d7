"""Decisions by policy: how many each second, how late the latest, and beside what else there is."""
