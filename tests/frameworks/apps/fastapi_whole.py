"""A whole app of FastAPI."""

from tests.frameworks.apps.fastapi_routes import add_routes
from tests.frameworks.serving import Outer, names_of

names = names_of("FastAPI")
add_routes(names["app"].router)
app = Outer(names["app"], names["gate"])
