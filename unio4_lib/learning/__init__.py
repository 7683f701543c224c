"""What learners share: rows on the device, networks' losses, the loop, checkpoints, evaluation."""
