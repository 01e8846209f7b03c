"""Captions written by a model."""
