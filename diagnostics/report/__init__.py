"""Results as pages, tables and JSON; nothing here computes a result."""
