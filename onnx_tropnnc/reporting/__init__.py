"""Show the report: as a page with pictures, and as JSON with its schema."""
