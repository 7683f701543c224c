"""The one form of a dataset."""
