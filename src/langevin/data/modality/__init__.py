"""One file a modality: what it reads, how it writes and shows samples."""
