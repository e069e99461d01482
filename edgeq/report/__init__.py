"""Results for people and programs: the terminal, JSON, one HTML file."""
