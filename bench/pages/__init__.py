"""A section of the report for each kind of result: a module each, and `book` puts them together."""
