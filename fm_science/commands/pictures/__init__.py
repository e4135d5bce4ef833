"""The pictures of the lectures, one function each, for ``fm-science show``."""
