"""A whole mesh for a long time: does its memory stay, do its descriptors, does every message come?"""
