"""Traces of several engines, held against one another module by module."""
