"""The judge: models of the world, estimates of a policy in them, trust and the gate."""
