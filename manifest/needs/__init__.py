"""What a replay needs, part by part, and whether it is to be had here."""
