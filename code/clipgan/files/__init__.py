"""The one gate for files: whatever is read from a file passes here before it is used."""
