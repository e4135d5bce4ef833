"""Flows that are known in closed form, and the table of what the engine must reach with them."""
