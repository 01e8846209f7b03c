"""Weights as files: found, verified, downloaded."""
