"""Everything that manages AWS resources."""
