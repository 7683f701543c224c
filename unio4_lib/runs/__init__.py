"""Whole runs: the run's folder, the compiled pipeline on this machine or a cluster, sweeps."""
