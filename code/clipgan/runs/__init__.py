"""What a run is on disk: its folder, states, snapshots, numbers and curves."""
