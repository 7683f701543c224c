"""Networks, and policies on disk."""
