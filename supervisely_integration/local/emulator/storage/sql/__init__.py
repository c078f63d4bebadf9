"""SQLite: connections, tables, and lists with filters and pages."""
