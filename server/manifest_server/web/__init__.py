"""The pages: runs to browse, search and compare, rendered from the functions of the store."""
