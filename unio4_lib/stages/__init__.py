"""The engine: one stage from its inputs to its artifact."""
