"""What programs share: settings, state, audit, admission, servers, and how they run."""
