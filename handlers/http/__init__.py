"""The HTTP door: one module per resource, and what they share. `app.build_app` puts it together."""
