"""What joins Manifest with other libraries: each file is imported by whoever uses its library."""
