"""The database's schema, one revision after another; `metering migrate` applies them. See env.py for how."""
