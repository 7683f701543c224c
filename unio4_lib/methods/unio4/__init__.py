"""Uni-O4: cloning, critics and models, improvement behind the gate, online PPO."""
