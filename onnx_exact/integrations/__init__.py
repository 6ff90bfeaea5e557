"""Passes for the frameworks that people build their chains of tools in, one module a framework."""
