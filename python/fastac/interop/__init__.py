"""Faces of the native env for other libraries, one room for each; such a library is imported with its room."""
