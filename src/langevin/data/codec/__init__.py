"""One file a codec."""
