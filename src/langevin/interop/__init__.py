"""Denoisers in the forms of other libraries, one form a file."""
