"""What a container is made of and how it replaces its predecessor: pure functions, no engine, no network."""
