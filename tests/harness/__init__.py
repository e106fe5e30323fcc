"""What the integration and fault tests stand on: processes, workspaces, PostgreSQL servers, one agent with its node."""
