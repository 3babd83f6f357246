"""The HTTP endpoint: a FastAPI application with the routes of several client dialects (see `dialects`)."""
