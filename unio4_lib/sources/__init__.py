"""Where data comes from: Minari, D4RL files, folders, object storage, a simulator."""
