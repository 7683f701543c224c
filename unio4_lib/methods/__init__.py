"""The rooms of the methods: only here their names are known."""
