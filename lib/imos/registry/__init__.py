"""Registry: versions of a project's adapters, which of them is in use, and who judges them."""
