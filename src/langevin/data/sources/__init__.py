"""Where pictures come from: folders, zips, arrays, idx files, the built-in digits. Each gives a `Source`."""
