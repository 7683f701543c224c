"""The stages of Uni-O4: from artifacts to an artifact."""
