"""What attaching and loading build: the torch side of this room's files of the same names."""
