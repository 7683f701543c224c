"""The tournament: policies of several methods before one judge, and the best of them goes on."""
