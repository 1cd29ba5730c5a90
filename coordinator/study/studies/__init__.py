"""The studies of the laboratory, one a file."""
