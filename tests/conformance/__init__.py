"""Tests of the published vectors."""
