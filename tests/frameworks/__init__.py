"""The gate in other frameworks, under every server, and together with other packages."""
