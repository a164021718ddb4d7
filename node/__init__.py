"""What programs share: settings, clocks, state folder, store, audit, admission, servers, running."""
