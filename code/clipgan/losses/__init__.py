"""The losses of the method; each takes tensors (or modules) and returns scalars."""
