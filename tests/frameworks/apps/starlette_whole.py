"""A whole app of Starlette."""

from tests.frameworks.apps.starlette_routes import ROUTES
from tests.frameworks.serving import Outer, names_of

names = names_of("Starlette")
names["app"].router.routes.extend(ROUTES)
app = Outer(names["app"], names["gate"])
