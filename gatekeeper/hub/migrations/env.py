"""What Alembic runs for every command: the steps, over the connection that it was given."""

from alembic import context

from gatekeeper.hub.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
