"""Figures from usage: which parts answer a question (cover), the answer (read), and keeping rollups fresh (refresh)."""
