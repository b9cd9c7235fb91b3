"""Drafting and checking a user's data: what stands in the files, and what a careful person asks."""
