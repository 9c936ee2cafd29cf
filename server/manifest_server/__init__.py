"""Keep runs in SQL and serve them."""
