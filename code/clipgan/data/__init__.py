"""Images and captions: readers, preparation, loaders, and the drawn toy data."""
