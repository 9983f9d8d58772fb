"""The app with python-socketio."""

from tests.frameworks.serving import Outer, names_of

names = names_of("python-socketio")
app = Outer(names["app"], names["gate"])
