"""Architectures of published feature networks that no dependency brings; state-dict keys as they were published."""
