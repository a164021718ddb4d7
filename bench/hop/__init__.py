"""One hop between two processes: what QUIC, lanes and frames do without any program on top."""
