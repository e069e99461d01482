"""Results for people and programs: the terminal and JSON, and what a page shares with them."""
