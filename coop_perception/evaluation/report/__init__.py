"""What an evaluation leaves for people to look at: an overview picture, a page, a table for the terminal."""
