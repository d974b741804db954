"""Wrong input: one table of mistakes, with the message of each word for word, and what is left behind."""
