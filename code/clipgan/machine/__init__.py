"""What a run computes on: device, precision, processes, and faster forms of the method for a CPU."""
