"""Faults that other projects have shipped, each held against this one."""
