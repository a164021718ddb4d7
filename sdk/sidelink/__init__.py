"""sidelink."""
