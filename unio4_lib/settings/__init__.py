"""What can be set: models, presets, layers and their origins."""
