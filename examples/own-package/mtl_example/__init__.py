"""What an own package adds to mtl; ``pyproject.toml`` registers it."""
