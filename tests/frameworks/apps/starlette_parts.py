"""A mounted app and a mounted router of Starlette."""

from tests.frameworks.apps.starlette_routes import ROUTES
from tests.frameworks.serving import Outer, names_of

names = names_of("Starlette in parts")
names["chat"].router.routes.extend(ROUTES)
names["router"].routes.extend(ROUTES)
app = Outer(names["app"], names["gate"])
