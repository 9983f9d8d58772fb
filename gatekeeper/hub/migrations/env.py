"""The environment of Alembic: runs the migrations over a given connection."""

from alembic import context

from gatekeeper.hub.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
