"""What a compile record says: where an export's time went, and what the graph became."""
