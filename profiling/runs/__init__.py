"""What one run's trace says: its events joined with the graph's calls, and summed."""
