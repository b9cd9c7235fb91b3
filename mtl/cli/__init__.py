"""Front doors: each command parses, calls the rooms, prints, and does nothing else."""
