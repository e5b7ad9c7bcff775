"""Tables, pages and plots from the result files."""
