"""A sub-app and a mounted APIRouter of FastAPI."""

from tests.frameworks.apps.fastapi_routes import add_routes
from tests.frameworks.serving import Outer, names_of

names = names_of("FastAPI in parts")
add_routes(names["chat"].router)
add_routes(names["router"])
app = Outer(names["app"], names["gate"])
