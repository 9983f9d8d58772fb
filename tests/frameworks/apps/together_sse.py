"""The app with sse-starlette."""

from tests.frameworks.serving import Outer, names_of

names = names_of("sse-starlette")
app = Outer(names["app"], names["gate"])
