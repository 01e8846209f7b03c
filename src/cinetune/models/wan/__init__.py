"""Wan2.1-I2V and its miniature."""
