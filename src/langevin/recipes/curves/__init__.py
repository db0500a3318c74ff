"""What a curve of quality can be taken over: one file a kind."""
