"""unio4: offline-to-online reinforcement learning as a production pipeline."""

__version__ = "0.1.0"
