"""Project settings by name, as TOML files."""
