"""What people look at: the report as a page, its pictures, and the schema of its JSON."""
